"""Cold starts: from the start of a process to its first answer with a row from the database, beside the peers.

    python -m bench.cold_start

Each is what its platform would run: the functions as Vercel's builder makes them, under Vercel's runtime, those for
Lambda as osls packages them, under Lambda's own client, and a bundle of Node. In turns, because the machine's speed
drifts; medians, and how they compare with this function's in each turn. The round trip to the database is added by a
proxy. No TLS, which would add the same round trips to all.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from bench import cold_start_aws, node
from bench.peers import met, ratio
from bench.reads import server
from tests import results
from tests.deploy import tools, vercel_build, vercel_instance
from tests.servers.proxy import WireProxy

TURNS = 21
ROUND_TRIPS = (0, 10)  # ms
GOAL = 0.4  # of FastAPI + SQLAlchemy's time
PATH = "/api/item/7"
OURS = "this function, on Vercel"
FASTAPI = "FastAPI + SQLAlchemy, on Vercel"
ALONE = "Vercel's runtime alone, no database"
DRIZZLE = "Drizzle on postgres-js, bundled, on Node alone"
_HERE = Path(__file__).parent

# Begins a cold start on the database of this URL; the block begins with the first answer, and ends the process.
Start = Callable[[str], AbstractContextManager[None]]

ENDPOINT = '''"""Read one item."""

from shared import db
from shared.web import Endpoint, Problem, lambda_handler

endpoint = Endpoint("/api/item/{id}")


@endpoint.get
def read(id: int) -> db.Row:
    row = db.fetch_one("SELECT id, name, price FROM item WHERE id = %(id)s", {"id": id})
    if row is None:
        raise Problem(404, "There is no such item.")
    return row


handler = lambda_handler(endpoint)
'''

_RUNTIME_ALONE = """async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
"""


class Cost(NamedTuple):
    """What a cold start costs, in milliseconds."""

    wall: float
    cpu: float


Costs = Mapping[str, list[Cost]]  # of each, its turns


def main() -> None:
    """Build, measure, and keep the result."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = stack.enter_context(server(Path(folder)))
        proxy = stack.enter_context(WireProxy("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
        try:
            subjects = all_subjects(Path(folder), url)
        except tools.Missing as missing:
            print(f"Without cold starts: {missing}", file=sys.stderr)
            return
        costs = {}
        for round_trip in ROUND_TRIPS:
            proxy.delay = round_trip / 2000
            costs[round_trip] = measure(subjects, proxy.url(url))
    print(results.markdown(results.keep(report(costs))))


def all_subjects(folder: Path, url: str) -> dict[str, Start]:
    """Build everything that is measured. Raises tools.Missing where this machine lacks what builds it."""
    return {
        OURS: _on_vercel(_our_project(folder / "ours"), url),
        FASTAPI: _on_vercel(vercel_build.copy_project(_HERE / "fastapi_peer", folder / "fastapi"), url),
        ALONE: _on_vercel(_runtime_alone(folder / "alone"), url),
        **cold_start_aws.subjects(folder, ENDPOINT),
        DRIZZLE: _on_node(folder),
    }


def measure(subjects: Mapping[str, Start], url: str) -> Costs:
    """Give each its turn, TURNS times over after one to warm up."""
    costs: dict[str, list[Cost]] = {name: [] for name in subjects}
    for turn in range(TURNS + 1):
        for name, start in subjects.items():
            before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            with start(url):
                wall = time.perf_counter() - begin
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if turn:
                costs[name].append(Cost(wall * 1000, cpu * 1000))
    return costs


def report(costs: Mapping[int, Costs]) -> results.Result:
    """Compare medians, and each turn with this function's of the same turn; `costs` are for each round trip."""
    return results.Result(
        name="cold-start",
        page="docs/PERFORMANCE.md",
        command="python -m bench.cold_start",
        tables=[*(_table(of, round_trip) for round_trip, of in costs.items()), _goals(costs)],
        plots=[
            results.Plot(
                "cold-start.svg",
                "Time from the start of a process to its first answer with a row, a bar for each",
                "ms to the first answer",
                "",
                {
                    f"{round_trip} ms to the database and back": [
                        (name, round(statistics.median(_walls(turns)))) for name, turns in of.items()
                    ]
                    for round_trip, of in costs.items()
                },
                "bars",
            )
        ],
    )


def _table(costs: Costs, round_trip: int) -> results.Table:
    rows = []
    for name, turns in costs.items():
        cells: list[str] = []
        for times in (_walls, _cpus):
            cells += f"{statistics.median(times(turns)):.0f}", f"{ratio(times(turns), times(costs[OURS])):.2f}"
        rows.append((name, *cells))
    return results.Table(
        f"Process start to the first row over HTTP, {round_trip} ms to the database and back",
        ("", "ms", "x this, on Vercel", "CPU, ms", "x this, on Vercel"),
        rows,
    )


def _goals(costs: Mapping[int, Costs]) -> results.Table:
    """Compare with the goal, and tell what is left of the ratio without the runtime, which no function can mend."""
    rows, without = [], []
    for round_trip, of in costs.items():
        for ours, peer in ((OURS, FASTAPI), (cold_start_aws.OURS, cold_start_aws.FASTAPI)):
            value = ratio(_walls(of[ours]), _walls(of[peer]))
            label = f"{ours} / {peer}, at {round_trip} ms"
            rows.append((label, f"<= {GOAL:.2f}", f"{value:.2f}", met(value <= GOAL)))
        alone = statistics.median(_walls(of[ALONE]))
        rest = ratio((time - alone for time in _walls(of[OURS])), (time - alone for time in _walls(of[FASTAPI])))
        without.append(f"{rest:.2f} at {round_trip} ms")
    return results.Table(
        "Goals, by the clock",
        ("", "Goal", "Measured", "Met"),
        rows,
        f"Vercel's runtime starts before either. Without its time the function is, of FastAPI + SQLAlchemy: "
        f"{', '.join(without)}.",
    )


def _walls(turns: list[Cost]) -> list[float]:
    return [turn.wall for turn in turns]


def _cpus(turns: list[Cost]) -> list[float]:
    return [turn.cpu for turn in turns]


def _our_project(folder: Path) -> Path:
    vercel_build.copy_project(tools.ROOT, folder)
    (folder / "functions" / "item.py").write_text(ENDPOINT, "utf-8")
    return folder


def _runtime_alone(folder: Path) -> Path:
    vercel_build.copy_project(_HERE / "fastapi_peer", folder)
    (folder / "requirements.txt").write_text("", "utf-8")
    (folder / "app.py").write_text(_RUNTIME_ALONE, "utf-8")
    return folder


def _on_vercel(project: Path, url: str) -> Start:
    """Build a project, and give its function's cold start. The project's hook migrates the database of this URL."""
    variables = {"DATABASE_URL": url, "VERCEL_ENV": "production", "ADMIN_INITIAL_PASSWORD": "Correct-Horse-9-Battery"}
    build = vercel_build.build(project, variables)
    if build.code != 0:
        raise RuntimeError(f"{project.name} was not built:\n{build.log}")
    folder = project.with_name(f"{project.name}-function")
    build.function.copy_to(folder)

    @contextmanager
    def start(url: str) -> Iterator[None]:
        environment = build.function.config["environment"]
        with vercel_instance.running(folder, build.python, environment, {"DATABASE_URL": url}) as instance:
            answer = instance.get(PATH)
            assert answer.status == 200, answer
            yield

    return start


def _on_node(folder: Path) -> Start:
    """Bundle the Drizzle server, and give its cold start."""
    bundle, program = node.bundle("server.mjs", folder), str(tools.node())

    @contextmanager
    def start(url: str) -> Iterator[None]:
        # Nothing else of the environment: NODE_EXTRA_CA_CERTS, for one, makes Node start more slowly.
        process = subprocess.Popen([program, str(bundle)], stdout=subprocess.PIPE, env={"DATABASE_URL": url})
        try:
            assert process.stdout is not None
            connection = HTTPConnection("127.0.0.1", int(process.stdout.readline()))
            connection.request("GET", PATH)
            assert connection.getresponse().status == 200
            connection.close()
            yield
        finally:
            process.kill()
            process.wait()

    return start


if __name__ == "__main__":
    main()

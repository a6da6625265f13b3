"""Cold starts: from the start of a process to its first answer with a row from the database, beside the peers.

    make bench

Each is what its platform would run: the functions as Vercel's builder makes them, under Vercel's runtime, those for
Lambda as osls packages them, under Lambda's own client, and a bundle of Node. In turns, because the machine's speed
drifts; medians, and how they compare with this function's. The round trip to the database is added by a proxy. No TLS,
which would add the same round trips to all.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench import cold_start_aws
from bench.reads import server
from tests.deploy import tools, vercel_build, vercel_instance
from tests.servers.proxy import WireProxy

TURNS = 15
ROUND_TRIPS = (0.0, 0.010)  # seconds
PATH = "/api/item/7"
OURS = "this function, Vercel"
_HERE = Path(__file__).parent

# Begins a cold start on the database of this URL; the block begins with the first answer, and ends the process.
Start = Callable[[str], AbstractContextManager[None]]

_ENDPOINT = '''"""Read one item."""

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


def main() -> None:
    """Build, measure, and print a table for each round trip."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = stack.enter_context(server(Path(folder)))
        proxy = stack.enter_context(WireProxy("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
        try:
            subjects = all_subjects(Path(folder), url)
        except tools.Missing as missing:
            print(f"Without cold starts: {missing}", file=sys.stderr)
            return
        for seconds in ROUND_TRIPS:
            proxy.delay = seconds / 2
            show(measure(subjects, proxy.url(url)), seconds)


def all_subjects(folder: Path, url: str) -> dict[str, Start]:
    """Build everything that is measured. Raises tools.Missing where this machine lacks what builds it."""
    return {
        OURS: _on_vercel(_our_project(folder / "ours"), url),
        "FastAPI + SQLAlchemy, Vercel": _on_vercel(
            vercel_build.copy_project(_HERE / "fastapi_peer", folder / "fastapi"), url
        ),
        "no database, Vercel": _on_vercel(_runtime_alone(folder / "alone"), url),
        **cold_start_aws.subjects(folder, _ENDPOINT),
        "Drizzle, Node": _on_node(folder),
    }


def measure(subjects: dict[str, Start], url: str) -> dict[str, Cost]:
    """Give each its turn, TURNS times over after one to warm up, and take the medians."""
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
    return {name: Cost(*map(statistics.median, zip(*values, strict=True))) for name, values in costs.items()}


def show(costs: dict[str, Cost], round_trip: float) -> None:
    """Print the table; a ratio above 1 says how many times the time of this function a peer needs."""
    ours = costs[OURS]
    table = Table(title=f"Process start to the first row over HTTP, {round_trip * 1000:g} ms to the database and back")
    for column in ("", "ms", "x this", "CPU ms", "x this"):
        table.add_column(column, justify="right" if column else "left")
    for name, cost in costs.items():
        ratios = f"{cost.wall / ours.wall:.2f}", f"{cost.cpu / ours.cpu:.2f}"
        table.add_row(name, f"{cost.wall:.0f}", ratios[0], f"{cost.cpu:.0f}", ratios[1])
    Console().print(table)


def _our_project(folder: Path) -> Path:
    vercel_build.copy_project(tools.ROOT, folder)
    (folder / "functions" / "item.py").write_text(_ENDPOINT, "utf-8")
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
    packages = tools.npm_packages("drizzle", _HERE / "drizzle" / "package.json")
    bundle = folder / "server.cjs"
    # In the folder of the packages: esbuild looks for them from the file that it bundles.
    source = packages / "server.mjs"
    source.write_text((_HERE / "drizzle" / "server.mjs").read_text("utf-8"), "utf-8")
    command = [str(packages / "node_modules" / ".bin" / "esbuild"), str(source), "--bundle", "--platform=node"]
    subprocess.run([*command, "--minify", f"--outfile={bundle}", "--log-level=error"], check=True)
    node = str(tools.node())

    @contextmanager
    def start(url: str) -> Iterator[None]:
        # Nothing else of the environment: NODE_EXTRA_CA_CERTS, for one, makes Node start more slowly.
        process = subprocess.Popen([node, str(bundle)], stdout=subprocess.PIPE, env={"DATABASE_URL": url})
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

"""A storm of connections: many instances begin to read at once, this pool beside those that people use.

    python -m bench.storm

40 processes, 10 readers in each, 10 reads each, before a server with 100 slots: direct, and through a PgBouncer with 20
connections. A failed read is not tried again. In turns; each storm begins when the connections of the one before are
gone. Writes what share was served and how fast, and the connections held, which are sampled.
"""

import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from bench import node, reads
from bench.peers import met
from bench.storm_clients import LONGEST, PATIENCE, TOO_LONG
from bench.storm_instances import Answers, Blow, drizzle, python_clients
from tests import results
from tests.deploy import tools
from tests.servers import binaries, pgbouncer, postgres
from tests.servers.postgres import Postgres

PROCESSES, THREADS, READS = 40, 10, 10
TURNS = 2
POOLER = {"default_pool_size": "20", "max_client_conn": "1000"}
_SAMPLED = 0.02  # seconds between two looks at the connections
_SHOWN = 0.1  # seconds for which the plot shows the most of them


class Subject(NamedTuple):
    """A client: its name in bench/storm_clients.py, or Drizzle; and whether a pooler is between."""

    client: str
    pooled: bool = False


OURS = ("this pool, direct", "this pool, PgBouncer")
SUBJECTS = {
    OURS[0]: Subject("ours"),
    "psycopg_pool 0 to 10, direct": Subject("psycopg-pool"),
    "SQLAlchemy QueuePool 5+10, direct": Subject("queue-pool"),
    "SQLAlchemy NullPool, direct": Subject("null-pool"),
    "Drizzle on postgres-js, max 10, direct": Subject("drizzle"),
    OURS[1]: Subject("ours", pooled=True),
    "psycopg_pool 0 to 10, prepare_threshold=None, PgBouncer": Subject("psycopg-pool-unprepared", pooled=True),
    "SQLAlchemy QueuePool 5+10, PgBouncer": Subject("queue-pool", pooled=True),
    "SQLAlchemy NullPool, PgBouncer": Subject("null-pool", pooled=True),
    "Drizzle on postgres-js, max 10, prepare: false, PgBouncer": Subject("drizzle", pooled=True),
}


class Storm(NamedTuple):
    """One storm, and the connections that the server held: seconds since it began, and how many."""

    answers: Answers
    connections: list[tuple[float, int]]


def main() -> None:
    """Measure, and keep the result."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # the servers may run as another user
        try:
            server = stack.enter_context(postgres.running(binaries.MAJORS[-1], folder / "server"))
        except binaries.Unavailable as missing:
            print(f"Without storms: {missing}", file=sys.stderr)
            return
        server.create_database("storm")
        reads.fill(server.url("storm"))
        subjects = _possible(folder)
        storms: dict[str, list[Storm]] = {name: [] for name in subjects}
        for _ in range(TURNS):
            for name, (subject, blow) in subjects.items():
                with _way(server, folder / "pooler", pooled=subject.pooled) as url:
                    storms[name].append(watched(blow, url, server))
    print(results.markdown(results.keep(report(storms))))


def watched(blow: Blow, url: str, server: Postgres) -> Storm:
    """Let one storm blow, and sample the connections; it begins and ends without any."""
    sampler = psycopg.connect(server.admin_url(), autocommit=True)
    samples: list[tuple[float, int]] = []
    over = threading.Event()

    def held() -> int:
        count = "SELECT count(*) FROM pg_stat_activity WHERE usename = %(app)s"
        row = sampler.execute(count, {"app": postgres.APP}).fetchone()
        assert row is not None
        return int(row[0])

    def sample() -> None:
        while not over.wait(_SAMPLED):
            samples.append((time.monotonic(), held()))

    with sampler:
        _until(lambda: held() == 0)
        thread = threading.Thread(target=sample)
        thread.start()
        try:
            answers = blow(url)
        finally:
            over.set()
            thread.join()
        during = [(at - answers.begun, count) for at, count in samples if 0 <= at - answers.begun <= answers.took]
    return Storm(answers, during)


def report(storms: Mapping[str, list[Storm]]) -> results.Result:
    """Put all turns together: what was served and what failed; medians of the times; the most connections."""
    figures = {name: _figures(turns) for name, turns in storms.items()}
    rows = [
        (
            name,
            f"{int(1000 * of['served'] / of['asked']) / 10:g} %",
            f"{of['p50']:.0f}",
            f"{of['p99']:.0f}",
            f"{of['took']:.1f}",
            f"{of['most']}",
            f"{of['failed']}",
        )
        for name, of in figures.items()
    ]
    failed = {name: figures[name]["asked"] - figures[name]["served"] for name in OURS if name in figures}
    return results.Result(
        name="storm-peers",
        page="docs/PERFORMANCE.md",
        command="python -m bench.storm",
        tables=[
            results.Table(
                f"{PROCESSES} processes x {THREADS} readers x {READS} reads, max_connections = 100, "
                f"a PgBouncer with {POOLER['default_pool_size']} connections",
                ("", "served", "p50, ms", "p99, ms", "in all, s", "most connections", "what failed most"),
                rows,
                f"Turns of each: {TURNS}. The times are of the reads that were served: medians of the turns. What an "
                f"instance has not read {LONGEST:g} s after the beginning has failed. The connections are the "
                f"server's, sampled each {1000 * _SAMPLED:g} ms.",
            ),
            results.Table(
                "Goals: reads that fail",
                ("", "Goal", "Measured", "Met"),
                [(name, "0", f"{number}", met(number == 0)) for name, number in failed.items()],
            ),
        ],
        plots=[
            results.Plot(
                "storm-peers-failed.svg",
                "The share of reads that a storm leaves without an answer, a bar for each client",
                "reads that failed, %",
                "",
                {"failed": [(name, round(100 - 100 * of["served"] / of["asked"], 1)) for name, of in figures.items()]},
                "bars",
            ),
            results.Plot(
                "storm-peers-connections.svg",
                "The connections that the server holds without a pooler, from the storm's beginning to the last "
                "answer, in the first turn",
                "seconds",
                "connections",
                {name: thinned(turns[0].connections) for name, turns in storms.items() if not SUBJECTS[name].pooled},
                "steps",
            ),
        ],
        figures=figures,
    )


def thinned(samples: list[tuple[float, int]]) -> list[tuple[float, float]]:
    """Keep the most of each short while."""
    most: dict[int, int] = {}
    for at, count in samples:
        most[int(at / _SHOWN)] = max(count, most.get(int(at / _SHOWN), 0))
    return [(round(number * _SHOWN, 1), count) for number, count in most.items()] or [(0.0, 0)]


def _most(errors: Counter[str]) -> str:
    """Give what failed most; of reads that got no answer in time also what the client itself most said meanwhile."""
    if not errors:
        return ""
    (first, _), *others = errors.most_common()
    return f"{first}; {others[0][0]}" if first == TOO_LONG and others else first


def reason(error: str) -> str:
    """Give what a server or a pool says, without who says it to whom."""
    said = re.search(r"(?:FATAL|ERROR): +(.+)", error)
    return (said[1] if said else error.partition("\n")[0])[:90]


def _figures(turns: list[Storm]) -> dict[str, Any]:
    answers = [storm.answers for storm in turns]
    errors = Counter(reason(error) for one in answers for error in one.errors)
    served = sum(len(one.seconds) for one in answers)

    def percentile(percent: int) -> float:
        of = [sorted(one.seconds)[len(one.seconds) * percent // 100] for one in answers if one.seconds]
        return round(1000 * statistics.median(of), 1) if of else float("nan")

    return {
        "asked": served + errors.total(),
        "served": served,
        "p50": percentile(50),
        "p99": percentile(99),
        "took": round(statistics.median(one.took for one in answers), 2),
        "most": max((count for storm in turns for _, count in storm.connections), default=0),
        "failed": _most(errors),
    }


def _possible(folder: Path) -> dict[str, tuple[Subject, Blow]]:
    """Give what can be measured on this machine, and say what can not."""
    size = (PROCESSES, THREADS, READS)
    bundle = flavour = None
    try:
        bundle = node.bundle("storm.mjs", folder)
    except tools.Missing as missing:
        print(f"Without Drizzle: {missing}", file=sys.stderr)
    try:
        flavour = _flavour()
    except binaries.Unavailable as missing:
        print(f"Without PgBouncer: {missing}", file=sys.stderr)
    possible: dict[str, tuple[Subject, Blow]] = {}
    for name, subject in SUBJECTS.items():
        if subject.pooled and flavour is None:
            continue
        if subject.client != "drizzle":
            possible[name] = subject, python_clients(subject.client, *size)
        elif bundle is not None:
            possible[name] = subject, drizzle(bundle, *size, prepare=not subject.pooled)
    return possible


@contextmanager
def _way(server: Postgres, folder: Path, *, pooled: bool) -> Iterator[str]:
    url = server.url("storm")
    if not pooled:
        yield url
        return
    users = {postgres.APP: postgres.APP_PASSWORD}
    with pgbouncer.running(_flavour(), folder, server.port, users, POOLER) as pooler:
        yield pooler.url(url)


def _flavour() -> str:
    """Choose the newest PgBouncer that is here. Raises Unavailable."""
    *older, newest = binaries.PGBOUNCERS
    try:
        binaries.pgbouncer(newest)
    except binaries.Unavailable:
        binaries.pgbouncer(older[0])
        return older[0]
    return newest


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the connections of the storm before are still there")
        time.sleep(_SAMPLED)


if __name__ == "__main__":
    main()

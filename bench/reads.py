"""Primary-key reads in 8 threads: this pool beside raw psycopg, psycopg_pool, SQLAlchemy, Drizzle, and the limits.

    python -m bench.reads

Each client is a process of its own, and they read in turns, because the machine's speed drifts. Writes the client's
CPU for each read and the reads in a second, how they compare, and whether the goals are met.
"""

import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench import processors
from bench.peers import DRIZZLE, FLOOR, OURS, Kind, Peer, met, ratio, running
from ops.embedded import find_binaries
from ops.postgres_server import PostgresServer
from tests import results
from tests.deploy import tools
from tests.servers.process import free_port

THREADS = 8
READS = 300  # in each thread and turn
FEW_READS = 10  # for a client that connects for each
LIMIT_READS = 3000  # for pgbench, in whose CPU the log-ins are
TURNS = 31
ROWS = 10_000
SQL = "SELECT id, name, price FROM item WHERE id = %(id)s"

RAW = "raw psycopg, a connection each"
UNPREPARED = "the same, prepare_threshold=None"
PGBENCH = "the limit: pgbench -M prepared"
PGBENCH_UNPREPARED = "the limit, nothing prepared: pgbench -M extended"
NULLPOOL = "SQLAlchemy, NullPool"
PEERS = {
    OURS: Kind("ours"),
    "this pool, pg8000": Kind("ours-pg8000"),
    RAW: Kind("psycopg"),
    UNPREPARED: Kind("psycopg-unprepared"),
    "psycopg_pool": Kind("psycopg-pool"),
    "SQLAlchemy, as it comes": Kind("sqlalchemy"),
    "SQLAlchemy, autocommit": Kind("sqlalchemy-autocommit"),
    NULLPOOL: Kind("sqlalchemy-nullpool"),
    "postgres-js": Kind("postgres-js"),
    DRIZZLE: Kind("drizzle"),
    FLOOR: Kind("floor"),
}
GOALS = {DRIZZLE: 2.5, RAW: 0.9}  # times the reads of these
FEW = {name: PEERS[name] for name in (OURS, RAW, "psycopg_pool", DRIZZLE)}
_HEADING = ("", "CPU of the client, us a read", "x this pool", "reads/s by the clock", "x this pool")


class Cost(NamedTuple):
    """One turn: microseconds of the client's CPU for each read, and reads in a second by the clock."""

    cpu: float
    rate: float


Turn = Callable[[], Cost]
Costs = Mapping[str, list[Cost]]


def main() -> None:
    """Measure, and keep the result."""
    processors.step_aside()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = stack.enter_context(server(Path(folder)))
        try:
            with opened(PEERS, url, folder, processors.take_one) as turns:
                limits = {
                    PGBENCH: _pgbench(url, Path(folder), "prepared"),
                    PGBENCH_UNPREPARED: _pgbench(url, Path(folder), "extended"),
                }
                costs = measure({**turns, **limits}, TURNS)
            processors.take_all(int(Path(folder, "data", "postmaster.pid").read_text("utf-8").split()[0]))
            with opened(FEW, url, folder, processors.take_all) as turns:
                on_all = measure(turns, TURNS)
        except tools.Missing as missing:
            print(f"Without reads: {missing}", file=sys.stderr)
            return
    print(results.markdown(results.keep(report(costs, on_all))))


@contextmanager
def opened(kinds: Mapping[str, Kind], url: str, folder: str, begin: Callable[[], None]) -> Iterator[Mapping[str, Turn]]:
    """Start these clients, and give their turns."""
    with running(kinds, Path(folder), begin=begin) as peers:
        for peer in peers.values():
            peer.open(url, THREADS)
        yield {name: _turn(peer, FEW_READS if name == NULLPOOL else READS) for name, peer in peers.items()}
        for peer in peers.values():
            peer.close()


def measure(turns: Mapping[str, Turn], number: int) -> Costs:
    """Give each its turn, `number` times over after one to warm up."""
    costs: dict[str, list[Cost]] = {name: [] for name in turns}
    for turn in range(number + 1):
        for name, run in turns.items():
            cost = run()
            if turn:
                costs[name].append(cost)
    return costs


def _rows(costs: Costs) -> list[tuple[str, ...]]:
    """Compare medians, and each turn with this pool's of the same turn."""
    cpu = {name: [cost.cpu for cost in turns] for name, turns in costs.items()}
    rate = {name: [cost.rate for cost in turns] for name, turns in costs.items()}
    return [
        (
            name,
            f"{statistics.median(cpu[name]):.0f}",
            f"{ratio(cpu[name], cpu[OURS]):.2f}",
            f"{statistics.median(rate[name]):.0f}",
            f"{ratio(rate[name], rate[OURS]):.2f}",
        )
        for name in costs
    ]


def _more(costs: Costs, peer: str) -> dict[str, float]:
    """Give by how many times this pool's reads are more than a peer's, in a second of CPU and by the clock."""
    ours, theirs = costs[OURS], costs[peer]
    return {
        "CPU": ratio((cost.cpu for cost in theirs), (cost.cpu for cost in ours)),
        "clock": ratio((cost.rate for cost in ours), (cost.rate for cost in theirs)),
    }


def report(costs: Costs, on_all: Costs) -> results.Result:
    """Write the tables: each client on a processor of its own, and a few on all of them."""
    goals = [
        (f"{layout}: this pool / {peer}, reads by the {of}", f">= {least:.1f}", f"{value:.2f}", met(value >= least))
        for layout, measured in (("client on one processor", costs), ("sharing all", on_all))
        for peer, least in GOALS.items()
        for of, value in _more(measured, peer).items()
    ]
    unprepared = [f"{value:.2f} by the {of}" for of, value in _more(costs, UNPREPARED).items()]
    limit = ratio((cost.rate for cost in costs[PGBENCH_UNPREPARED]), (cost.rate for cost in costs[OURS]))
    medians = {
        name: (statistics.median(cost.cpu for cost in turns), statistics.median(cost.rate for cost in turns))
        for name, turns in costs.items()
    }
    return results.Result(
        name="reads",
        page="docs/PERFORMANCE.md",
        command="python -m bench.reads",
        tables=[
            results.Table(
                f"Primary-key reads, {THREADS} at a time in one process, the client on one processor, the server on "
                "the others",
                _HEADING,
                _rows(costs),
                "PostgreSQL on loopback without TLS. CPU is the client's own, user and system.",
            ),
            results.Table(
                "The same, client and server sharing all processors",
                _HEADING,
                _rows(on_all),
                "Python's threads take the interpreter from one another, which costs more where the kernel moves them "
                "between processors: one for each process, as functions have it, is best (`taskset`, one CPU for a "
                "container).",
            ),
            results.Table(
                "Goals",
                ("", "Goal", "Measured", "Met"),
                goals,
                "Reads in a second of CPU, or by the clock: the median of all turns' ratios. raw psycopg prepares "
                "its statement, which spares the server the planning; this pool does not, since behind a transaction "
                f"pooler that fails. To raw psycopg that does not either it is {' and '.join(unprepared)}, the client "
                "on one processor. By the clock the server sets a limit: pgbench with nothing prepared has "
                f"{limit:.2f} times the reads of this pool.",
            ),
        ],
        plots=[
            results.Plot(
                "reads-cpu.svg",
                "The client's CPU for a primary-key read, a bar for each client",
                "CPU of the client, us a read",
                "",
                {"CPU": [(name, round(cpu, 1)) for name, (cpu, _) in medians.items() if name != NULLPOOL]},
                "bars",
            ),
            results.Plot(
                "reads-rate.svg",
                "Primary-key reads in a second, a bar for each client",
                "reads/s by the clock",
                "",
                {"reads": [(name, round(rate)) for name, (_, rate) in medians.items()]},
                "bars",
            ),
        ],
    )


def _turn(peer: Peer, reads: int) -> Turn:
    def turn() -> Cost:
        cpu, seconds = peer.load(reads)
        return Cost(cpu / (THREADS * reads), THREADS * reads / seconds)

    return turn


def _pgbench(url: str, folder: Path, protocol: str) -> Turn:
    script = folder / "read.sql"
    script.write_text(f"\\set id random(1, {READS})\nSELECT id, name, price FROM item WHERE id = :id;\n", "utf-8")
    program = str(find_binaries() / "pgbench")
    options = ["-n", "-M", protocol, "-c", str(THREADS), "-t", str(LIMIT_READS), "-f", str(script)]

    def turn() -> Cost:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [program, *options, url], stdout=subprocess.PIPE, text=True, check=True, preexec_fn=processors.take_one
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rate = re.search(r"tps = ([\d.]+)", done.stdout)
        assert rate is not None, done.stdout
        return Cost(cpu / (THREADS * LIMIT_READS) * 1e6, float(rate[1]))

    return turn


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with the table that all benchmarks read; gives its URL."""
    database = PostgresServer(find_binaries(), folder / "data", port=free_port(), user="bench", password="bench")
    database.init()
    database.start()
    try:
        fill(database.url())
        yield database.url()
    finally:
        database.stop()


def fill(url: str) -> None:
    """Create the table that all benchmarks read."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price int NOT NULL)")
        rows = "SELECT g, 'item ' || g, g FROM generate_series(1, %(rows)s) AS g"
        connection.execute(f"INSERT INTO item {rows}", {"rows": ROWS})


if __name__ == "__main__":
    main()

"""Primary-key reads with 8 threads: this pool beside raw psycopg, psycopg_pool, SQLAlchemy and Drizzle.

    make bench

Prints microseconds of the client's CPU for each read, and how that compares. CPU time, because the time on the clock
varies more with the machine than with the code; in turns, because the machine's speed drifts.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import sqlalchemy
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from rich.console import Console
from rich.table import Table

from ops.embedded import find_binaries
from ops.postgres_server import PostgresServer
from shared import db
from tests.servers.process import free_port

THREADS = 8
READS = 300  # for each thread and turn
TURNS = 15
ROWS = 10_000
SQL = "SELECT id, name, price FROM item WHERE id = %(id)s"

Reader = Callable[[int], None]  # one thread's reads; it is given the thread's number
Turn = Callable[[], float]  # microseconds of CPU for each read


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = stack.enter_context(server(Path(folder)))
        os.environ.update(DATABASE_URL=url, APP_ENV="production", DATABASE_POOL_MAX="10")
        peers = {
            "raw psycopg, a connection each": _in_threads(stack.enter_context(_raw(url))),
            "this pool, psycopg": _in_threads(_ours),
            "psycopg_pool": _in_threads(stack.enter_context(_psycopg_pool(url))),
            "SQLAlchemy, as it comes": _in_threads(stack.enter_context(_sqlalchemy(url, {}))),
            "SQLAlchemy, autocommit": _in_threads(
                stack.enter_context(_sqlalchemy(url, {"isolation_level": "AUTOCOMMIT"}))
            ),
        }
        if (drizzle := stack.enter_context(_drizzle(url))) is not None:
            peers["Drizzle on postgres-js"] = drizzle
        costs = measure(peers)
        stack.callback(db.close_db)
    show(costs)


def measure(peers: dict[str, Turn]) -> dict[str, float]:
    """Give each its turn, TURNS times over after one to warm up, and take the median."""
    costs: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(TURNS + 1):
        for name, run in peers.items():
            cost = run()
            if turn:
                costs[name].append(cost)
    return {name: statistics.median(values) for name, values in costs.items()}


def show(costs: dict[str, float]) -> None:
    """Print the table; a ratio above 1 says how many times the CPU of this pool a peer needs."""
    ours = costs["this pool, psycopg"]
    python = sys.version.split()[0]
    table = Table(title=f"{THREADS} threads, primary-key reads, PostgreSQL on loopback, Python {python}")
    table.add_column("")
    table.add_column("CPU us a read", justify="right")
    table.add_column("x this pool", justify="right")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.1f}", f"{cost / ours:.2f}")
    Console().print(table)


def _in_threads(read: Reader) -> Turn:
    def turn() -> float:
        threads = [threading.Thread(target=read, args=(number,)) for number in range(THREADS)]
        before = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.process_time() - before) / (THREADS * READS) * 1e6

    return turn


def _ours(_thread: int) -> None:
    for n in range(READS):
        db.fetch_one(SQL, {"id": n + 1})


@contextmanager
def _raw(url: str) -> Iterator[Reader]:
    with ExitStack() as stack:
        connections = [
            stack.enter_context(psycopg.connect(url, autocommit=True, row_factory=dict_row)) for _ in range(THREADS)
        ]

        def read(thread: int) -> None:
            connection = connections[thread]
            for n in range(READS):
                connection.execute(SQL, {"id": n + 1}).fetchone()

        yield read


@contextmanager
def _psycopg_pool(url: str) -> Iterator[Reader]:
    kwargs = {"autocommit": True, "row_factory": dict_row}
    with ConnectionPool(url, kwargs=kwargs, min_size=THREADS, max_size=10, open=True) as pool:

        def read(_thread: int) -> None:
            for n in range(READS):
                with pool.connection() as connection:
                    connection.execute(SQL, {"id": n + 1}).fetchone()

        yield read


@contextmanager
def _sqlalchemy(url: str, options: dict[str, str]) -> Iterator[Reader]:
    engine = sqlalchemy.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), execution_options=options, pool_size=10
    )
    table = sqlalchemy.table("item", *(sqlalchemy.column(name) for name in ("id", "name", "price")))

    def read(_thread: int) -> None:
        for n in range(READS):
            with engine.connect() as connection:
                query = sqlalchemy.select(table).where(table.c.id == n + 1)
                connection.execute(query).mappings().first()

    yield read
    engine.dispose()


@contextmanager
def _drizzle(url: str) -> Iterator[Turn | None]:
    folder = Path(__file__).parent / "drizzle"
    if not (folder / "node_modules").exists():
        print("Without Drizzle: npm install in bench/drizzle brings it.", file=sys.stderr)
        yield None
        return
    process = subprocess.Popen(
        ["node", "reads.mjs"],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def turn() -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{READS}\n")
        process.stdin.flush()
        return float(process.stdout.readline()) / (8 * READS)

    yield turn
    process.communicate()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with the table that all benchmarks read; gives its URL."""
    running = PostgresServer(find_binaries(), folder / "data", port=free_port(), user="bench", password="bench")
    running.init()
    running.start()
    try:
        with psycopg.connect(running.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price int NOT NULL)")
            rows = "SELECT g, 'item ' || g, g FROM generate_series(1, %(rows)s) AS g"
            connection.execute(f"INSERT INTO item {rows}", {"rows": ROWS})
        yield running.url()
    finally:
        running.stop()


if __name__ == "__main__":
    main()

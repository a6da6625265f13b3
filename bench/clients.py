"""The Python clients that are compared, as their users run them: `python -m bench.clients NAME`, which bench/peers.py starts.

Reads commands from standard input and answers each with a line of JSON, as bench/drizzle/client.mjs does:

    open URL SESSIONS   make what an application makes while it is imported; opens no connection
    first               read one row; ms from before the connect to the row in hand
    end                 end what the first read began: a transaction, a loan from a pool
    warm READS          read so often; median ms of a read, with its end
    load READS          read so often in each of SESSIONS threads; microseconds of CPU, and seconds by the clock
    close               close everything
"""  # noqa: E501

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool
from sqlalchemy import NullPool

from bench import sql_alchemy
from bench.floor import Floor
from bench.reads import SQL
from shared import db
from shared.db.drivers import load
from shared.settings import reset_settings

# Reads a row and gives it, then ends what it began: a generator, so that a first row is in hand before its COMMIT.
Read = Callable[[int], Iterator[object]]
Session = Callable[[str], AbstractContextManager[Read]]


def ours(driver: str) -> Session:
    """Make a session of this project's pool: the first read opens the first connection of a process."""

    @contextmanager
    def session(url: str) -> Iterator[Read]:
        os.environ.update(DATABASE_URL=url, DATABASE_DRIVER=driver)
        reset_settings()
        load(driver)

        def read(id: int) -> Iterator[object]:
            yield db.fetch_one(SQL, {"id": id})

        try:
            yield read
        finally:
            db.close_db()

    return session


@contextmanager
def ours_later(url: str) -> Iterator[Read]:
    """Hold the first connection, from which the next ones have learned how the server takes TLS."""
    with ours("psycopg")(url) as read:
        for _ in read(1):
            pass
        with db.get_pool().lease():
            yield read


def raw(*, autocommit: bool, prepare_threshold: int | None = 5) -> Session:
    """Make a session of one connection; without autocommit each read is a transaction, which is psycopg's default.

    So is it to prepare a statement at its sixth use. Behind a transaction pooler users switch that off.
    """

    @contextmanager
    def session(url: str) -> Iterator[Read]:
        with ExitStack() as stack:

            @cache
            def connection() -> psycopg.Connection[DictRow]:
                opened = psycopg.connect(
                    url, autocommit=autocommit, prepare_threshold=prepare_threshold, row_factory=dict_row
                )
                stack.callback(opened.close)
                return opened

            def read(id: int) -> Iterator[object]:
                yield connection().execute(SQL, {"id": id}).fetchone()
                if not autocommit:
                    connection().commit()

            yield read

    return session


def psycopg_pool(**options: Any) -> Session:
    """Make a session of psycopg_pool, whose connections are in autocommit."""

    @contextmanager
    def session(url: str) -> Iterator[Read]:
        kwargs = {"autocommit": True, "row_factory": dict_row}
        with ExitStack() as stack:
            made = ConnectionPool(url, kwargs=kwargs, open=False, **options)

            @cache
            def pool() -> ConnectionPool:
                made.open()
                stack.callback(made.close)
                return made

            def read(id: int) -> Iterator[object]:
                with pool().connection() as connection:
                    yield connection.execute(SQL, {"id": id}).fetchone()

            yield read

    return session


def engine(**options: Any) -> Session:
    """Make a session of SQLAlchemy's Engine."""

    @contextmanager
    def session(url: str) -> Iterator[Read]:
        made = sql_alchemy.engine(url, **options)

        def read(id: int) -> Iterator[object]:
            with made.connect() as connection:
                yield connection.execute(sql_alchemy.item(id)).mappings().first()

        try:
            yield read
        finally:
            made.dispose()

    return session


@contextmanager
def floor(url: str) -> Iterator[Read]:
    """Speak the protocol, and nothing else."""
    client = Floor(url, "SELECT id, name, price FROM item WHERE id = $1")

    def read(id: int) -> Iterator[object]:
        yield client.read(str(id))

    try:
        yield read
    finally:
        client.close()


SESSIONS = {
    "ours": ours("psycopg"),
    "ours-later": ours_later,
    "ours-pg8000": ours("pg8000"),
    "psycopg": raw(autocommit=True),
    "psycopg-unprepared": raw(autocommit=True, prepare_threshold=None),
    "psycopg-transaction": raw(autocommit=False),
    "psycopg-pool": psycopg_pool(min_size=1, max_size=10),
    "psycopg-pool-check": psycopg_pool(min_size=1, max_size=10, check=ConnectionPool.check_connection),
    "sqlalchemy": engine(),
    "sqlalchemy-autocommit": engine(isolation_level="AUTOCOMMIT"),
    "sqlalchemy-nullpool": engine(poolclass=NullPool),
    "floor": floor,
}
# A thread cannot share it: each gets a session.
ONE_CONNECTION = {
    "psycopg",
    "psycopg-unprepared",
    "psycopg-transaction",
    "floor",
}


class Client:
    """What the commands do, with the open session, or one for each thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self._reads: list[Read] = []
        self._first: Iterator[object] = iter(())

    def open(self, url: str, sessions: str) -> None:
        """Prepare a session, or one for each thread where a thread needs its own."""
        number = int(sessions) if self.name in ONE_CONNECTION else 1
        reads = [self._stack.enter_context(SESSIONS[self.name](url)) for _ in range(number)]
        self._reads = reads * (int(sessions) // number)

    def first(self) -> float:
        """Connect and read; ms."""
        before = time.perf_counter()
        self._first = self._reads[0](1)
        next(self._first)
        return (time.perf_counter() - before) * 1e3

    def end(self) -> None:
        """End what the first read began."""
        for _ in self._first:
            pass

    def warm(self, reads: str) -> float:
        """Read; median ms."""
        times = []
        for n in range(int(reads)):
            before = time.perf_counter()
            for _ in self._reads[0](n + 1):
                pass
            times.append((time.perf_counter() - before) * 1e3)
        return statistics.median(times)

    def load(self, reads: str) -> tuple[float, float]:
        """Read in threads; microseconds of CPU, seconds by the clock."""
        ids = range(1, int(reads) + 1)
        threads = [threading.Thread(target=_read_all, args=(read, ids)) for read in self._reads]
        cpu, clock = time.process_time(), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.process_time() - cpu) * 1e6, time.perf_counter() - clock

    def close(self) -> None:
        """Close the session."""
        self._stack.close()


def _read_all(read: Read, ids: range) -> None:
    for id in ids:
        for _ in read(id):
            pass


def main() -> None:
    """Do what standard input says, until it ends."""
    client = Client(sys.argv[1])
    for line in sys.stdin:
        command, *words = line.split()
        print(json.dumps(getattr(client, command)(*words)), flush=True)


if __name__ == "__main__":
    main()

"""One client of bench/storm.py: `python -m bench.storm_clients CLIENT PROCESSES THREADS READS`, on DATABASE_URL.

Forks the processes once everything is imported, has them begin together, and prints what they saw as JSON. Each makes
its pool after the fork, as an instance does. One that is done stays, with the connections that it holds.
"""

import importlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import Any

from psycopg_pool import ConnectionPool
from sqlalchemy import NullPool

from bench import sql_alchemy
from bench.reads import SQL
from ops.processes import die_with_parent
from shared import db
from shared.deadline import within

DEADLINE = 10.0  # seconds for a read of this pool, as an instance's time bounds it; the peers know no deadline
# Seconds for an instance's reads; then the platform ends it, and what it has not read has failed. Longer than the 30 s
# for which psycopg_pool and QueuePool wait for a connection by default, so that their own errors are seen.
LONGEST = 35.0
PATIENCE = 60.0  # seconds more until the whole storm is given up
TOO_LONG = f"no answer within {LONGEST:g} s"

Read = Callable[[int], int]  # reads the row with this id, and gives the id in it
Client = Callable[[str], Read]  # on the database with this URL


def ours(_url: str) -> Read:
    """Read through this project's pool."""

    def read(id: int) -> int:
        with within(DEADLINE):
            row = db.fetch_one(SQL, {"id": id})
        assert row is not None
        return int(row["id"])

    return read


def psycopg_pool(**options: Any) -> Client:
    """Read through psycopg_pool, whose connections are in autocommit and have these options."""

    def client(url: str) -> Read:
        pool = ConnectionPool(url, kwargs={"autocommit": True, **options}, min_size=0, max_size=10, open=True)

        def read(id: int) -> int:
            with pool.connection() as connection:
                row = connection.execute(SQL, {"id": id}).fetchone()
            assert row is not None
            return int(row[0])

        return read

    return client


def engine(**options: Any) -> Client:
    """Read through SQLAlchemy's Engine."""

    def client(url: str) -> Read:
        made = sql_alchemy.engine(url, **options)

        def read(id: int) -> int:
            with made.connect() as connection:
                return int(connection.execute(sql_alchemy.item(id)).one().id)

        return read

    return client


CLIENTS: dict[str, Client] = {
    "ours": ours,
    "psycopg-pool": psycopg_pool(),
    "psycopg-pool-unprepared": psycopg_pool(prepare_threshold=None),
    "queue-pool": engine(pool_size=5, max_overflow=10),
    "null-pool": engine(poolclass=NullPool),
}


def read_all(read: Read, ids: range, seconds: list[float], errors: list[str]) -> None:
    """Read these rows one after the other; `seconds` are of those that were served."""
    for id in ids:
        begun = time.monotonic()
        try:
            if read(id) != id:
                raise AssertionError("another's row")
        except Exception as error:  # whatever it is, a user did not get an answer
            errors.append(f"{type(error).__name__}: {error}")
        else:
            seconds.append(time.monotonic() - begun)


def instance(client: str, number: int, threads: int, reads: int, start: Barrier, answers: Any) -> None:
    """Be one process."""
    die_with_parent()
    seconds: list[float] = []
    errors: list[str] = []
    read = CLIENTS[client](os.environ["DATABASE_URL"])
    firsts = [(number * threads + n) * reads + 1 for n in range(threads)]
    running = [
        threading.Thread(target=read_all, args=(read, range(first, first + reads), seconds, errors), daemon=True)
        for first in firsts
    ]
    start.wait()
    end = time.monotonic() + LONGEST
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(max(0.0, end - time.monotonic()))
    served, failed = list(seconds), list(errors)
    failed += [TOO_LONG] * (threads * reads - len(served) - len(failed))
    answers.put({"seconds": served, "errors": failed})
    signal.pause()


def main(client: str, processes: int, threads: int, reads: int) -> None:
    """Run them all."""
    logging.disable(logging.WARNING)  # pools warn each time that the server is full
    # The imports are paid for once.
    for module in ("shared.db.psycopg_driver", "sqlalchemy.dialects.postgresql.psycopg"):
        importlib.import_module(module)
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(processes + 1), context.Queue()
    running = [
        context.Process(target=instance, args=(client, number, threads, reads, start, answers))
        for number in range(processes)
    ]
    for process in running:
        process.start()
    try:
        start.wait()
        begun = time.monotonic()
        seen = [answers.get(timeout=LONGEST + PATIENCE) for _ in running]
        took = time.monotonic() - begun
    finally:
        for process in running:
            process.kill()
    both = {name: [value for one in seen for value in one[name]] for name in ("seconds", "errors")}
    print(json.dumps({**both, "begun": begun, "took": took}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

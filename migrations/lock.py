"""The migration lock: one runner at a time in each database.

A session-level advisory lock on a connection of its own, in autocommit mode. It is polled for with
pg_try_advisory_lock: a session that waits inside pg_advisory_lock holds a snapshot, and CREATE INDEX CONCURRENTLY of
the runner at work would wait for that snapshot while the waiter waits for the lock (ThomWright/postgres-migrations#36).

Whatever must not run beside a migration, such as a backup, takes the same lock: `with lock.taken("db backup", ...)`.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from migrations.connection import Connection, session
from shared.errors import LockTimeout, MigrationError

KEY = int.from_bytes(b"migrate!")  # a bigint; advisory locks are local to a database (manual 13.3.5)
WAIT = 300.0  # seconds that a deploy waits for another one

_HOLDER = """
SELECT pid, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), application_name,
       coalesce(host(client_addr), 'an address that is not shown')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::bigint = %(key)s >> 32 AND objid::bigint = %(key)s & 4294967295
"""


@contextmanager
def hold(connection: Connection, *, wait: float = WAIT, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on this autocommit connection, waiting for it up to `wait` seconds.

    Raises LockTimeout, which names the holder; MigrationError where the lock turns out to have been lost.
    """
    _acquire(connection, wait, report)
    try:
        yield
    except BaseException as error:
        lost = connection.broken
        connection.close()  # frees the lock, whatever state the connection is in
        if lost and isinstance(error, psycopg.Error):
            raise _lost() from None
        raise
    _release(connection)


@contextmanager
def taken(purpose: str, *, wait: float = WAIT, report: Callable[[str], None]) -> Iterator[Connection]:
    """Hold the lock on a connection of its own, which waiters see as `purpose`, such as "db backup".

    Raises what `session` and `hold` do. The connection must stay idle or in autocommit mode.
    """
    with session(purpose) as connection, hold(connection, wait=wait, report=report):
        yield connection


def _acquire(connection: Connection, wait: float, report: Callable[[str], None]) -> None:
    deadline = time.monotonic() + wait
    pause = 0.1
    announced = False
    while not _scalar(connection, "SELECT pg_try_advisory_lock(%s)"):
        if time.monotonic() >= deadline:
            holder, advice = _holder(connection)
            raise LockTimeout(
                f"Another migration is running: {holder}. Waited {wait:g} s for it.",
                solutions=["Wait for it to end and run this again.", *advice],
            )
        if not announced:
            report(f"Waiting for another migration: {_holder(connection)[0]}.")
            announced = True
        time.sleep(min(pause * random.uniform(0.5, 1), max(0.0, deadline - time.monotonic())))  # noqa: S311
        pause = min(pause * 1.5, 2.0)


def _release(connection: Connection) -> None:
    try:
        released = _scalar(connection, "SELECT pg_advisory_unlock(%s)")
    except psycopg.Error:
        released = False
    if not released:
        raise _lost()


def _lost() -> MigrationError:
    return MigrationError(
        "The migration lock was lost before the end: its session was ended, or passes through a pooler that changes "
        "it. Another migration may have run at the same time.",
        solutions=[
            "See what was applied: db migrate status",
            "Connect directly: DATABASE_URL must not name a pooler's host or port here.",
        ],
    )


def _scalar(connection: Connection, query: str) -> bool:
    row = connection.execute(query, (KEY,)).fetchone()
    return row is not None and bool(row[0])


def _holder(connection: Connection) -> tuple[str, list[str]]:
    """Name the holder, and give the advice on how to end it."""
    row = connection.execute(_HOLDER, {"key": KEY}).fetchone()
    if row is None:  # it ended between two questions
        return "its session has just ended", []
    pid, since, application, address = row
    # The server shows the rest to the same user and to members of pg_read_all_stats only.
    details = "of another user" if since is None else f"connected since {since} UTC, application {application}"
    return (
        f"pid {pid}, {details}, from {address}",
        [f"If it hangs, this ends it: SELECT pg_terminate_backend({pid});"],
    )

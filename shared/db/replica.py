"""Reads that may be a moment old, from a replica: `from shared.db import replica`.

The functions are those of `shared.db`, over a second pool, which is made when one of them is first called, to where
DATABASE_REPLICA_URL leads. Where that is not set they read from the primary through the ordinary pool, so code is the
same everywhere. Who must see what was just written reads with `shared.db`.

The sessions are read-only: a statement that writes is refused (25006). So a read that the server ends, because replay
would not wait for it or because it stops, is run again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, TypeVar

from shared import db
from shared.db.database import Database
from shared.db.drivers import Connection, Params, Row
from shared.db.failures import was_never_run
from shared.db.retry import action_for, pause
from shared.db.transaction import Transaction
from shared.errors import Error
from shared.settings import get_settings

__all__ = ["fetch_all", "fetch_one", "fetch_value", "stream"]

_T = TypeVar("_T")
_ATTEMPTS = 3
# Seconds. Short, so that reads which fell back to the primary leave it soon after the replica has returned.
_LIFETIME = 300.0

_replica = Database(
    "DATABASE_REPLICA_URL",
    lambda current: current.replica_database_url or current.database_url,
    max_lifetime=_LIFETIME,
    read_only=True,
)


def fetch_one(sql: LiteralString, params: Params = None) -> Row | None:
    """Give the first row, None where there is none."""
    rows = fetch_all(sql, params)
    return rows[0] if rows else None


def fetch_all(sql: LiteralString, params: Params = None) -> list[Row]:
    """Give all rows."""
    return _read(lambda connection: connection.fetch(sql, params))


def fetch_value(sql: LiteralString, params: Params = None) -> Any:
    """Give the first column of the first row, None where there is no row."""
    row = fetch_one(sql, params)
    return None if row is None else next(iter(row.values()))


def stream(sql: LiteralString, params: Params = None, *, batch: int = 500) -> Iterator[Row]:
    """Give the rows of a large result one by one, `batch` of them a round trip, from a server-side cursor.

    The connection is held until the last row is taken or the iterator is closed. It is never run again: rows that were
    given cannot be taken back.
    """
    database = _database()
    with _marked(database), Transaction(database.pool().lease, read_only=True) as tx:
        yield from tx.stream(sql, params, batch=batch)


def _read(run: Callable[[Connection], _T]) -> _T:
    database, earlier = _database(), 0
    with _marked(database):
        while True:
            with database.pool().lease() as connection:
                try:
                    return run(connection)
                except Error as error:
                    failed = error
                    again = _may_run_again(error, connection)
            earlier += 1
            if not again or earlier == _ATTEMPTS or not pause(earlier):
                raise failed


def _may_run_again(error: Error, connection: Connection) -> bool:
    """Tell whether a statement was never run, or ended on a server that had said that it takes no writes."""
    if was_never_run(error):
        return True
    if error.sqlstate == "25006" or action_for(error) not in ("again", "reconnect"):
        return False
    return "on" in map(connection.parameter, ("in_hot_standby", "default_transaction_read_only"))


def _database() -> Database:
    """Choose: the primary where there is no replica, and where a test has put a pool in the place of its own."""
    if _replica.has_pool:
        return _replica
    if db.primary.is_lent or get_settings().replica_database_url is None:
        return db.primary
    return _replica


@contextmanager
def _marked(database: Database) -> Iterator[None]:
    """Say of errors in the block whose server they met."""
    try:
        yield
    except Error as error:
        error.of_replica = database is _replica
        raise

"""The database, as endpoints see it: `from shared import db`.

Each function borrows a connection for one statement and gives it back: one round trip. Statements take parameters as
`%(name)s` and a mapping, with both drivers; a list goes in as `= ANY(%(ids)s)`. Rows come as dicts. `transaction()`
holds one connection for several statements.

Every function raises `shared.errors`: PoolTimeout where all connections stay in use, DatabaseUnavailable where the
database cannot be reached, DeadlineExceeded where the request's time is over, and DatabaseError or a subclass, such as
UniqueViolation, where the server refused the statement.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, LiteralString, TypeVar

from shared.db.connector import Connector
from shared.db.database import Database, close_all, drain_all
from shared.db.drivers import Connection, Params, Row
from shared.db.failures import was_never_run
from shared.db.pool import Pool
from shared.db.retry import retry, run_transaction
from shared.db.transaction import Isolation, Transaction
from shared.errors import DatabaseUnavailable

__all__ = [
    "Isolation",
    "Row",
    "Transaction",
    "close_db",
    "drain",
    "execute",
    "execute_many",
    "fetch_all",
    "fetch_one",
    "fetch_value",
    "get_pool",
    "open_connection",
    "retry",
    "run_transaction",
    "stream",
    "transaction",
]

_T = TypeVar("_T")

# Where DATABASE_URL leads.
primary = Database("DATABASE_URL", lambda current: current.database_url)


def get_pool() -> Pool:
    """Give this process's pool, made at the first call; no connection is opened before one is needed.

    Raises ConfigurationError where DATABASE_URL or another variable is missing or wrong.
    """
    return primary.pool()


def get_connector() -> Connector:
    """Give what opens this process's connections, the pool's and those beside it. Raises ConfigurationError."""
    return primary.connector()


def open_connection() -> Connection:
    """Open a connection beside the pool, for what must not wait for one of its; the caller closes it."""
    return get_connector().open()


def use_pool(pool: Pool | None) -> None:
    """Put another pool in the place of this process's, until it is called with None: the tests' way in.

    `close_db` leaves that pool alone: the code under test may well call it, as an application does when it ends.
    """
    if pool is not None:
        close_db()
    primary.use(pool)


def close_db(grace: float = 5.0) -> None:
    """Close this process's connections: idle ones now, those in use as they come back, within `grace` seconds.

    Statements that still run then are cancelled. The next statement opens a new pool.
    """
    close_all(grace)


def drain() -> None:
    """Close idle connections now and those in use as they come back, while statements may still run: before an end."""
    drain_all()


def fetch_one(sql: LiteralString, params: Params = None) -> Row | None:
    """Give the first row, None where there is none."""
    rows = fetch_all(sql, params)
    return rows[0] if rows else None


def fetch_all(sql: LiteralString, params: Params = None) -> list[Row]:
    """Give all rows."""
    return _run(lambda connection: connection.fetch(sql, params))


def fetch_value(sql: LiteralString, params: Params = None) -> Any:
    """Give the first column of the first row, None where there is no row."""
    row = fetch_one(sql, params)
    return None if row is None else next(iter(row.values()))


def execute(sql: LiteralString, params: Params = None) -> int:
    """Run a statement and give the number of rows it touched."""
    return _run(lambda connection: connection.execute(sql, params))


def _run(run: Callable[[Connection], _T]) -> _T:
    """Run one statement; a second time only where nothing has run it."""
    with get_pool().lease() as connection:
        try:
            return run(connection)
        except DatabaseUnavailable as error:
            if not was_never_run(error):
                raise
    with get_pool().lease() as connection:
        return run(connection)


def execute_many(sql: LiteralString, sequence: Iterable[Mapping[str, Any]]) -> int:
    """Run a statement for each set of parameters, all or none, and give the number of rows touched in all."""
    with transaction() as tx:
        return tx.execute_many(sql, sequence)


def stream(sql: LiteralString, params: Params = None, *, batch: int = 500) -> Iterator[Row]:
    """Give the rows of a large result one by one, `batch` of them a round trip, from a server-side cursor.

    The connection is held until the last row is taken or the iterator is closed.
    """
    with transaction(read_only=True) as tx:
        yield from tx.stream(sql, params, batch=batch)


def transaction(*, isolation: Isolation | None = None, read_only: bool = False) -> Transaction:
    """Open a transaction for a `with` block: committed at its end, rolled back where it raises.

    Inside, use what `with transaction() as tx` gives; the functions of this module use a connection of their own.
    """
    return Transaction(get_pool().lease, isolation=isolation, read_only=read_only)

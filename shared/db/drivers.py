"""psycopg and pg8000 behind one small protocol: what the pool and the face need of a connection."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from shared import errors
from shared.db.url import DatabaseURL

Row = dict[str, Any]
Params = Mapping[str, Any] | None
Liveness = Literal["alive", "dead", "unknown"]


class Connection(Protocol):
    """One connection in autocommit mode. Statements take `%(name)s` parameters; errors are `shared.errors`."""

    raw: Any  # the driver's own connection, for those who need more

    @property
    def closed(self) -> bool: ...

    @property
    def in_transaction(self) -> bool:
        """Tell whether a transaction is open or failed, or cannot be told, so that it must be rolled back."""
        ...

    @property
    def in_failed_transaction(self) -> bool:
        """Tell whether a statement failed in the open transaction: its COMMIT would be a silent ROLLBACK."""
        ...

    def fetch(self, sql: str, params: Params = None) -> list[Row]:
        """Run one statement and give its rows; one round trip."""
        ...

    def execute(self, sql: str, params: Params = None) -> int:
        """Run one statement and give the number of rows it touched; one round trip."""
        ...

    def execute_many(self, sql: str, sequence: Iterable[Mapping[str, Any]]) -> int:
        """Run one statement once for each set of parameters and give the rows touched in all."""
        ...

    def liveness(self) -> Liveness:
        """Tell without a round trip whether the server has hung up; `unknown` wants a ping."""
        ...

    def cancel(self) -> None:
        """Ask the server, from another thread, to cancel what runs; never raises."""
        ...

    def close(self) -> None:
        """Close it; never raises."""
        ...


def connect(url: DatabaseURL, driver: str, *, connect_timeout: float) -> Connection:
    """Open a connection within `connect_timeout` seconds and the deadline.

    Raises DatabaseUnavailable. Only the driver that is asked for is imported.
    """
    if driver == "pg8000":
        from shared.db import pg8000_driver

        return pg8000_driver.connect(url, connect_timeout=connect_timeout)
    from shared.db import psycopg_driver

    return psycopg_driver.connect(url, connect_timeout=connect_timeout)


_BY_SQLSTATE: Mapping[str, type[errors.DatabaseError]] = {
    "23502": errors.NotNullViolation,
    "23503": errors.ForeignKeyViolation,
    "23505": errors.UniqueViolation,
    "23514": errors.CheckViolation,
    "40001": errors.SerializationFailure,
    "40P01": errors.DeadlockDetected,
    "42P01": errors.UndefinedTable,
    "55P03": errors.LockNotAvailable,
    "57014": errors.QueryCanceled,
}

# The server ends the connection, or never gave one (PostgreSQL manual, appendix A): class 08, and these.
_CONNECTION_LOST = ("25P03", "25P04", "53300", "57P01", "57P02", "57P03", "57P04", "57P05")


def error_from(sqlstate: str | None, message: str, constraint: str | None = None) -> errors.Error:
    """Give the error of ours for what a server or driver said; without a SQLSTATE the connection failed."""
    if sqlstate is None or sqlstate.startswith("08") or sqlstate in _CONNECTION_LOST:
        return errors.DatabaseUnavailable(message, sqlstate=sqlstate)
    kind = _BY_SQLSTATE.get(sqlstate)
    if kind is None:
        kind = errors.IntegrityError if sqlstate.startswith("23") else errors.DatabaseError
    return kind(message, sqlstate=sqlstate, constraint=constraint)


def first_line(text: object) -> str:
    """Keep the first line of a driver's text: what follows repeats it, or holds data."""
    return next(iter(str(text).strip().splitlines()), "no reason given")

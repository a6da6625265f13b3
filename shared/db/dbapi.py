"""A connection on loan as a DB-API connection (PEP 249), which SQLAlchemy can use.

The driver's connection stays in autocommit, as the pool lends it. What a transaction is to be like is kept here and
said in its BEGIN, which travels with the first statement. So nothing has to be put back when the loan ends, and nothing
is set in a session that a pooler gives to another client.

Errors are the driver's own, with ours as `__cause__` where the deadline or the pool ended a statement.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

from shared import deadline, errors
from shared.db.drivers import Connection
from shared.db.failures import was_never_run
from shared.db.lease import Lease

T = TypeVar("T")

_READ_ONLY = "25006"  # read_only_sql_transaction
_CLEANUP = 1.0  # seconds for a ROLLBACK or CLOSE, which are worth their round trip after the deadline too

# The class of a SQLSTATE's class (PEP 249; PostgreSQL manual, appendix A), as psycopg has them. pg8000 has one for all.
_CLASSES = {
    **dict.fromkeys("08 27 28 2F 38 39 3B 40 53 54 55 57 58 F0 HV".split(), "OperationalError"),
    **dict.fromkeys("10 20 21 26 34 3D 3F 42 44 P0".split(), "ProgrammingError"),
    **dict.fromkeys("24 25 2B 2D XX".split(), "InternalError"),
    "0A": "NotSupportedError",
    "22": "DataError",
    "23": "IntegrityError",
}


class Loan:
    """A connection of the pool until `close`, after which it is nobody's, however often it is closed.

    `module` is the driver's, for its exceptions. `isolation_level`, `read_only` and `deferrable` are of the next
    transaction; None leaves them to the server.
    """

    def __init__(self, lease: Lease, module: ModuleType) -> None:
        self._lease: Lease | None = lease
        self._connection = lease.__enter__()
        self._module = module
        self._pid = os.getpid()
        self.autocommit = False
        self.isolation_level: str | None = None
        self.read_only: bool | None = None
        self.deferrable: bool | None = None
        self._declared: list[Any] = []  # psycopg's server-side cursors, which end with their transaction

    @property
    def closed(self) -> bool:
        """Tell whether no statement can run any more."""
        return self._is_over or self._connection.closed

    @property
    def _is_over(self) -> bool:
        # After a fork it is the parent's.
        return self._lease is None or self._pid != os.getpid()

    @property
    def in_transaction(self) -> bool:
        """Tell whether a transaction is open on the server."""
        return not self.closed and self._connection.in_transaction

    def parameter(self, name: str) -> str | None:
        """Give what the server last reported of one of its settings: no round trip."""
        return self._live().parameter(name)

    def cursor(self, name: str | None = None) -> "Cursor":
        """Give a cursor whose rows are tuples; with a name, psycopg's server-side one."""
        raw = self._live().raw
        if self._module.__name__ != "psycopg":
            return Cursor(self, raw.cursor())
        from psycopg.rows import tuple_row

        if name is None:
            return Cursor(self, raw.cursor(row_factory=tuple_row))
        declared = raw.cursor(name, row_factory=tuple_row)
        self._declared.append(declared)
        return ServerCursor(self, declared)

    def run(self, function: Callable[[], T], *, alone: bool) -> T:
        """Run a call of the driver's that sends a statement: in a transaction, unless in autocommit."""
        connection = self._live()
        if not self.autocommit and not connection.in_transaction:
            connection.begin(self._begin())
        try:
            return connection.call(function, alone=alone)
        except errors.Error as error:
            raise self._module.OperationalError(error.message) from error
        except self._module.DatabaseError as error:
            specific = self._specific(error)
            if getattr(specific, "sqlstate", None) == _READ_ONLY and not self.read_only:
                connection.close()  # after a failover it leads to the old primary
            if specific is error:
                raise
            raise specific from error

    def driver_connection(self) -> Any:
        """Give the driver's own connection, in the transaction that a statement would be in."""
        if not self.autocommit and not self.in_transaction:
            self.run(lambda: None, alone=True)
        return self._live().raw

    def commit(self) -> None:
        """Commit, where there is a transaction. Raises where that would be, or may have been, no commit."""
        connection = self._connection
        if not self._is_over and (connection.closed or connection.liveness() == "dead"):
            connection.close()
            raise self._module.OperationalError(
                "The connection was lost before COMMIT was sent, so nothing was committed."
            )
        if not self._live().in_transaction:
            return
        if connection.in_failed_transaction:
            self.rollback()
            raise self._module.InternalError(
                "A statement of this transaction had failed, so nothing of it was committed: use begin_nested() around"
                " a statement that may fail."
            )
        self._forget_cursors()
        try:
            connection.end("COMMIT")
        except errors.Error as error:
            if connection.closed and not was_never_run(error):
                unknown = _unknown(error)
                raise self._module.OperationalError(unknown.message) from unknown
            cause = error.__cause__
            if isinstance(cause, self._module.Error):
                raise self._specific(cause) from error
            raise self._module.OperationalError(error.message) from error

    def rollback(self) -> None:
        """Roll back, where there is a transaction. A connection that is lost in this has rolled back, too."""
        self._forget_cursors()
        if not self.in_transaction:
            return
        try:
            with deadline.fresh(_CLEANUP):
                self._connection.end("ROLLBACK")
        except errors.Error as error:
            if not self._connection.closed:
                raise self._module.OperationalError(error.message) from error

    def close(self) -> None:
        """Give the connection back to the pool, which rolls back what is open."""
        self._forget_cursors()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def terminate(self) -> None:
        """Give the connection back closed, so that the pool forgets it."""
        if not self._is_over:
            self._connection.close()
        self.close()

    def _live(self) -> Connection:
        if self._is_over:
            raise self._module.InterfaceError("This connection was given back, or belongs to the parent process.")
        if self._connection.closed:
            raise self._module.OperationalError("The connection is closed.")
        return self._connection

    def _forget_cursors(self) -> None:
        while self._declared:
            self._declared.pop()._close()  # the part of psycopg's close that sends nothing

    def _begin(self) -> str:
        words = ["BEGIN"]
        if self.isolation_level is not None:
            words.append(f"ISOLATION LEVEL {self.isolation_level}")
        if self.read_only is not None:
            words.append("READ ONLY" if self.read_only else "READ WRITE")
        if self.deferrable is not None:
            words.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        return " ".join(words)

    def _specific(self, error: Any) -> Any:
        """Give pg8000's one DatabaseError the class that its SQLSTATE has in psycopg, and the attribute `sqlstate`."""
        details = error.args[0] if error.args else None
        if type(error) is not self._module.DatabaseError or not isinstance(details, dict):
            return error
        sqlstate = str(details.get("C"))
        specific = getattr(self._module, _CLASSES.get(sqlstate[:2], "DatabaseError"))(details)
        specific.sqlstate = sqlstate
        return specific


class Cursor:
    """A cursor of the driver whose statements run under our rules; the rest is the driver's."""

    def __init__(self, loan: Loan, cursor: Any) -> None:
        self._loan = loan
        self._cursor = cursor

    def execute(self, sql: Any, params: Any = (), **options: Any) -> "Cursor":
        """Run a statement, in one round trip with its BEGIN."""
        self._loan.run(lambda: self._cursor.execute(sql, params, **options), alone=_must_stand_alone(sql, params))
        return self

    def executemany(self, sql: Any, sequence: Sequence[Any]) -> None:
        """Run a statement for each set of parameters."""
        self._loan.run(lambda: self._cursor.executemany(sql, sequence), alone=False)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the cursor."""
        self._cursor.close()

    def __getattr__(self, name: str) -> Any:
        if name in ("callproc", "copy", "stream"):  # these send something, in ways of their own
            self._loan.driver_connection()
        return getattr(self._cursor, name)


class ServerCursor(Cursor):
    """psycopg's server-side cursor, which asks the server for each batch of rows."""

    def execute(self, sql: Any, params: Any = (), **options: Any) -> "ServerCursor":
        """Declare the cursor."""
        self._loan.run(lambda: self._cursor.execute(sql, params, **options), alone=True)
        return self

    def fetchone(self) -> Any:
        """Fetch the next row."""
        return self._loan.run(self._cursor.fetchone, alone=True)

    def fetchmany(self, size: int = 0) -> Any:
        """Fetch the next rows."""
        return self._loan.run(lambda: self._cursor.fetchmany(size), alone=True)

    def fetchall(self) -> Any:
        """Fetch the rows that are left."""
        return self._loan.run(self._cursor.fetchall, alone=True)

    def close(self) -> None:
        """Close the cursor on the server, if the transaction has not done it."""
        if self._loan.in_transaction and not self._cursor.closed:
            with deadline.fresh(_CLEANUP):
                self._loan.run(self._cursor.close, alone=True)
        self._cursor._close()


def _unknown(error: errors.Error) -> errors.TransactionResolutionUnknown:
    unknown = errors.TransactionResolutionUnknown(
        f"The connection was lost during COMMIT, so it is unknown whether that was kept: {error.message}",
        solutions=["Look whether its changes are there before doing it again."],
        sqlstate="08007",
    )
    unknown.__cause__ = error
    return unknown


def _must_stand_alone(sql: Any, params: Any) -> bool:
    """Tell whether it may be several statements, or COPY: neither can share a round trip with its BEGIN."""
    return not isinstance(sql, str) or (not params and ";" in sql) or sql.lstrip()[:4].upper() == "COPY"

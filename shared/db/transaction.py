"""One transaction on one connection: BEGIN, the statements, COMMIT, and nothing more."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, LiteralString

from shared import deadline
from shared.db.drivers import Connection, Params, Row
from shared.db.failures import needs_another_server, was_never_run
from shared.db.lease import Lease
from shared.errors import DatabaseError, DatabaseUnavailable, DeadlineExceeded, Error, TransactionResolutionUnknown

Isolation = Literal["read committed", "repeatable read", "serializable"]
_LEVELS: Mapping[Isolation, str] = {
    "read committed": " ISOLATION LEVEL READ COMMITTED",
    "repeatable read": " ISOLATION LEVEL REPEATABLE READ",
    "serializable": " ISOLATION LEVEL SERIALIZABLE",
}


class Transaction:
    """What `with transaction() as tx` gives: the functions of `shared.db`, on one connection and in one transaction."""

    def __init__(
        self, lease: Callable[[], Lease], *, isolation: Isolation | None = None, read_only: bool = False
    ) -> None:
        self._make_lease = lease
        self._begin = "BEGIN" + (_LEVELS[isolation] if isolation else "") + (" READ ONLY" if read_only else "")
        self._read_only = read_only
        self._lease: Lease | None = None
        self._open: Connection | None = None
        self._names = 0

    def __enter__(self) -> "Transaction":
        if self._lease is not None:
            raise RuntimeError("this transaction was entered already: call transaction() for each")
        self._lease = self._make_lease()
        self._open = self._lease.__enter__()
        self._open.begin(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lease is not None
        connection, self._open = self._connection, None
        try:
            if error is None:
                self._commit(connection)
            elif needs_another_server(error) and not self._read_only:
                connection.close()
            elif not connection.closed:
                # The block's own error is the one to report, and its time may be over.
                with contextlib.suppress(Error), deadline.fresh(1.0):
                    connection.end("ROLLBACK")
        finally:
            self._lease.release()

    def _commit(self, connection: Connection) -> None:
        if connection.in_failed_transaction:
            connection.end("ROLLBACK")
            raise DatabaseError(
                "A statement of this transaction had failed, so nothing of it was committed.",
                solutions=["Do not catch a statement's error inside the block; use tx.savepoint() around it."],
                sqlstate="25P02",
            )
        if connection.liveness() == "dead":
            raise DatabaseUnavailable("The connection was lost before COMMIT was sent, so nothing was committed.")
        try:
            connection.end("COMMIT")
        except DatabaseUnavailable as lost:
            if was_never_run(lost):
                raise
            raise self._unknown(lost) from lost
        except DeadlineExceeded as late:
            # A connection that is still open has the server's word that the COMMIT was cancelled.
            if connection.closed:
                raise self._unknown(late) from late
            raise

    def _unknown(self, error: Error) -> Error:
        if self._read_only:
            return error
        return TransactionResolutionUnknown(
            f"The connection was lost during COMMIT, so it is unknown whether it was kept: {error.message}",
            solutions=[
                "Look whether its changes are there before doing it again.",
                "Where doing it twice is as good as once, say so: @db.retry(idempotent=True).",
            ],
            sqlstate="08007",
        )

    @property
    def _connection(self) -> Connection:
        if self._open is None:
            raise RuntimeError("this transaction is over: use it inside its `with` block")
        return self._open

    def fetch_one(self, sql: LiteralString, params: Params = None) -> Row | None:
        """Give the first row, None where there is none."""
        rows = self._connection.fetch(sql, params)
        return rows[0] if rows else None

    def fetch_all(self, sql: LiteralString, params: Params = None) -> list[Row]:
        """Give all rows."""
        return self._connection.fetch(sql, params)

    def fetch_value(self, sql: LiteralString, params: Params = None) -> Any:
        """Give the first column of the first row, None where there is no row."""
        row = self.fetch_one(sql, params)
        return None if row is None else next(iter(row.values()))

    def execute(self, sql: LiteralString, params: Params = None) -> int:
        """Run a statement and give the number of rows it touched."""
        return self._connection.execute(sql, params)

    def execute_many(self, sql: LiteralString, sequence: Iterable[Mapping[str, Any]]) -> int:
        """Run a statement for each set of parameters and give the number of rows touched in all."""
        return self._connection.execute_many(sql, sequence)

    def stream(self, sql: LiteralString, params: Params = None, *, batch: int = 500) -> Iterator[Row]:
        """Give the rows of a large result one by one, `batch` of them a round trip, from a server-side cursor."""
        connection, name = self._connection, self._name("cursor")
        connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", params)
        full = True
        while full:
            rows = connection.fetch(f"FETCH FORWARD {int(batch)} FROM {name}")
            full = len(rows) == batch
            yield from rows
        connection.execute(f"CLOSE {name}")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo only the block where it raises, and let the transaction go on."""
        connection, name = self._connection, self._name("savepoint")
        connection.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            if not connection.closed:
                with deadline.fresh(1.0):
                    connection.execute(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")
            raise
        connection.execute(f"RELEASE SAVEPOINT {name}")

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}_{self._names}"

"""For tests of endpoints: whatever they write is gone afterwards.

The fixture `rolled_back` in tests/conftest.py is made of it; docs/LOCAL_DEPLOYMENT.md shows its use.
"""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, cast

from shared import db
from shared.db.drivers import Connection
from shared.db.lease import Lease
from shared.db.pool import Pool


@contextmanager
def rolled_back() -> Iterator[None]:
    """Run the block on one connection and in one transaction that is rolled back at its end.

    Every statement and transaction of the code under test becomes a savepoint, so an error undoes as much as it would
    otherwise. Isolation levels are not kept, and other connections do not see what the block writes.
    """
    with closing(db.open_connection()) as connection:
        connection.execute("BEGIN")
        db.use_pool(cast(Pool, _OneConnection(connection)))
        try:
            yield
        finally:
            db.use_pool(None)
            connection.execute("ROLLBACK")


class _OneConnection:
    """Stand in for the pool: lend the same connection to one caller at a time, between savepoints."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.RLock()

    def lease(self, timeout: float | None = None) -> Lease:  # noqa: ARG002 - the pool's signature
        return cast(Lease, _Savepoint(self))

    def statistics(self) -> dict[str, int]:
        """Never busy: a caller waits for its turn."""
        return {"in_use": 0, "max_size": 1}


class _Savepoint:
    """One loan: what fails in it is undone, what it commits is kept until the end of the test."""

    def __init__(self, pool: _OneConnection) -> None:
        self._pool = pool
        self._connection = pool.connection

    def __enter__(self) -> "_Savepoint":
        self._pool.lock.acquire()
        self._connection.execute("SAVEPOINT loan")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        if self._connection.in_failed_transaction:
            self._connection.execute("ROLLBACK TO SAVEPOINT loan")
        self._connection.execute("RELEASE SAVEPOINT loan")
        self._pool.lock.release()

    def begin(self, sql: str) -> None:
        """Begin nothing: the savepoint stands for it."""

    def end(self, sql: str) -> None:
        if sql == "ROLLBACK":
            self._connection.execute("ROLLBACK TO SAVEPOINT loan")
        else:  # a later rollback on this loan must not undo it
            self._connection.execute("RELEASE SAVEPOINT loan; SAVEPOINT loan")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

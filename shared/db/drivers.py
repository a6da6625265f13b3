"""psycopg and pg8000 behind one small protocol: what the pool and the face need of a connection."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from shared.db.url import DatabaseURL
from shared.imports import without_collection

T = TypeVar("T")
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

    def begin(self, sql: str) -> None:
        """Open a transaction with the next statement, in its round trip; `sql` is the BEGIN."""
        ...

    def end(self, sql: str) -> None:
        """Send COMMIT or ROLLBACK, unless no statement followed the BEGIN: then there is nothing to end."""
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

    def call(self, function: Callable[[], T], *, alone: bool) -> T:
        """Run a call that sends one statement on a cursor of `raw`, in the round trip of a BEGIN that waits.

        With `alone` that BEGIN goes before it, in a round trip of its own. The driver's errors stay what they are.
        """
        ...

    @property
    def backend_pid(self) -> int:
        """Give the process id that whoever answered the connection gave as its own (manual 54.2.8)."""
        ...

    def parameter(self, name: str) -> str | None:
        """Give what the server last reported of one of its settings (manual 54.2.7): no round trip."""
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
    """Open a connection within `connect_timeout` seconds for each host, and the deadline.

    Raises DatabaseUnavailable. Only the driver that is asked for is imported.
    """
    connection: Connection = load(driver).connect(url, connect_timeout=connect_timeout)
    return connection


def load(driver: str) -> ModuleType:
    """Import a driver of ours; most of what a first connection costs in processor time."""
    with without_collection():
        return importlib.import_module(f"shared.db.{driver}_driver")

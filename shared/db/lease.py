"""A connection on loan, and in development who holds it."""

import logging
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from shared.db.drivers import Connection
from shared.db.failures import needs_another_server

if TYPE_CHECKING:
    from shared.db.entry import Entry
    from shared.db.pool import Pool

log = logging.getLogger(__name__)

_OURS = ("shared.db", "contextlib", "sqlalchemy")  # modules whose frames are not who asked


class Holder(NamedTuple):
    """Who asked for a connection, and when (monotonic)."""

    place: str
    since: float

    def __str__(self) -> str:
        return f"One is held for {time.monotonic() - self.since:.1f} s by {self.place}"


def caller() -> Holder:
    """Find the first frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    return Holder(f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})", time.monotonic())


class Lease:
    """A connection lent for a `with` block. Giving it back twice harms nobody: the second time does nothing."""

    __slots__ = ("_entry", "_pool")

    def __init__(self, pool: "Pool", entry: "Entry") -> None:
        self._pool = pool
        self._entry: Entry | None = entry

    def __enter__(self) -> Connection:
        if self._entry is None:
            raise RuntimeError("this connection was given back already")
        return self._entry.connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._entry is not None and needs_another_server(error):
            self._entry.connection.close()
        self.release()

    def release(self) -> None:
        """Give the connection back."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._pool.give_back(entry)

    def __del__(self) -> None:
        if self._entry is not None:
            log.error("a connection was lent and never given back: %s", self._pool.holder(self._entry))
            self.release()

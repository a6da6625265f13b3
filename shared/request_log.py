"""One line in the log for each request, with what it cost: time, the wait for a connection, and round trips.

A round trip, or flight, is one to the database. Whatever else is logged while a request is answered carries its id.
"""

import logging
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar

log = logging.getLogger(__name__)
# Lambda's root logger takes warnings only.
log.setLevel(logging.INFO)

# Who stands before us names a request: the header that comes first counts.
ID_HEADERS = ("x-request-id", "x-vercel-id", "x-amzn-trace-id")
_LINE = "%s %s %d in %.0f ms"
_ID_LENGTH = 128  # characters kept of what somebody else wrote


class Work:
    """What one request costs; written by the thread that answers it."""

    __slots__ = ("begun", "flights", "id", "pool_wait", "status")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.begun = time.monotonic()
        self.status = 500
        self.pool_wait = 0.0  # seconds
        self.flights = 0


_current: ContextVar[Work | None] = ContextVar("request", default=None)


def request_id() -> str | None:
    """Give the id of the request that is being answered."""
    work = _current.get()
    return None if work is None else work.id


def count_flights(flights: int = 1) -> None:
    """Note round trips to the database."""
    work = _current.get()
    if work is not None:
        work.flights += flights


def count_pool_wait(seconds: float) -> None:
    """Note that a connection was waited for, or opened."""
    work = _current.get()
    if work is not None:
        work.pool_wait += seconds


class logged:  # noqa: N801 - a context manager, read as a function
    """Log the block as one request, once its `status` is set; of a `probe` only what is no success.

    `path` is the endpoint's own, without values that a client wrote. A class, and a record made here: by way of a
    generator and the logger's own search for its caller each request would pay for what the line does not show.
    """

    __slots__ = ("_method", "_path", "_probe", "_token", "_work")

    def __init__(self, method: str, path: str, headers: Mapping[str, str], *, probe: bool) -> None:
        given = next((headers[name] for name in ID_HEADERS if headers.get(name)), None) if headers else None
        self._work = Work(given[:_ID_LENGTH] if given else secrets.token_hex(8))
        self._method, self._path, self._probe = method, path, probe

    def __enter__(self) -> Work:
        self._token = _current.set(self._work)
        return self._work

    def __exit__(self, *_error: object) -> None:
        work = self._work
        if (not self._probe or work.status >= 400) and log.isEnabledFor(logging.INFO):
            duration = (time.monotonic() - work.begun) * 1000
            values = (self._method, self._path, work.status, duration)
            record = logging.LogRecord(log.name, logging.INFO, __file__, 0, _LINE, values, None)
            record.__dict__.update(
                request_id=work.id,
                method=self._method,
                path=self._path,
                status=work.status,
                duration_ms=round(duration, 1),
                pool_wait_ms=round(work.pool_wait * 1000, 1),
                flights=work.flights,
            )
            log.handle(record)
        _current.reset(self._token)

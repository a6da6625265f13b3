"""One line in the log for each request, with what it cost: time, the wait for a connection, and round trips.

A round trip, or flight, is one to the database. Whatever else is logged while a request is answered carries its id.
"""

import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger(__name__)
# Lambda's root logger takes warnings only.
log.setLevel(logging.INFO)

# Who stands before us names a request: the header that comes first counts.
ID_HEADERS = ("x-request-id", "x-vercel-id", "x-amzn-trace-id")
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


@contextmanager
def logged(method: str, path: str, headers: Mapping[str, str], *, probe: bool) -> Iterator[Work]:
    """Log the block as one request, once its `status` is set; of a `probe` only what is no success.

    `path` is the endpoint's own, without values that a client wrote.
    """
    given = next((headers[name] for name in ID_HEADERS if headers.get(name)), None)
    work = Work(given[:_ID_LENGTH] if given else secrets.token_hex(8))
    token = _current.set(work)
    try:
        yield work
    finally:
        duration = time.monotonic() - work.begun
        if not probe or work.status >= 400:
            log.info(
                "%s %s %d in %.0f ms",
                method,
                path,
                work.status,
                duration * 1000,
                extra={
                    "request_id": work.id,
                    "method": method,
                    "path": path,
                    "status": work.status,
                    "duration_ms": round(duration * 1000, 1),
                    "pool_wait_ms": round(work.pool_wait * 1000, 1),
                    "flights": work.flights,
                },
            )
        _current.reset(token)

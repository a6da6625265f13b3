"""The moment by which the work under way must be done: one for each request, and every wait in it keeps to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# The monotonic clock: a request's deadline must not move when somebody sets the time.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining() -> float | None:
    """Give the seconds that are left, never below zero; None where there is no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def bound(seconds: float | None) -> float | None:
    """Shorten a wait of `seconds` (None: for ever) to what the deadline leaves."""
    left = remaining()
    if left is None:
        return seconds
    return left if seconds is None else min(left, seconds)


@contextmanager
def fresh(seconds: float) -> Iterator[None]:
    """Give the block a deadline of its own, for work that must be done although the caller's time is over."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bound everything in the block to `seconds` from now; an earlier deadline stays in force."""
    current, wanted = _deadline.get(), time.monotonic() + seconds
    token = _deadline.set(wanted if current is None else min(current, wanted))
    try:
        yield
    finally:
        _deadline.reset(token)

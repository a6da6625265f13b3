"""Connections at SIGTERM: the idle ones go at once, not only after the last request.

The application's own end comes when every request is answered. Vercel does not wait for that: 500 ms after SIGTERM the
instance is gone, and what it has not closed stays open on the server until a timeout there.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from shared import db


@contextmanager
def at_sigterm() -> Iterator[None]:
    """Drain the pool at a SIGTERM in this block, then let the handler that was there have it."""
    # Only the main thread may set handlers; where there is none, the process ends at once and its sockets with it.
    before = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    if not callable(before):
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(db.drain)  # not here: the pool may be in the middle of something
        before(number, frame)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, before)

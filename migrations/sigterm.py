"""SIGTERM for commands, as a cancelled build, `docker stop` and systemd send it: the first one is a Ctrl-C.

So a migration is rolled back and says so, a backup removes what it began, and locks are given back, where Python would
end at once. The second one ends the process, whatever it does.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first SIGTERM of this block."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.default_int_handler(signal.SIGINT, frame)

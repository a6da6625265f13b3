"""SIGTERM, twice: the first lets requests finish, which is the server's own doing; the second ends the process at once.

uvicorn takes only a second Ctrl-C for that. In a container nothing else would be left but SIGKILL: there the server is
process 1, for which the system ignores every signal that has no handler (pid_namespaces(7)).
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM  # as a shell shows the end by a signal


@contextmanager
def second_one_ends() -> Iterator[None]:
    """Let the server's handler have the first SIGTERM of this block; end the process at the next, whatever it does."""
    # Only the main thread may set handlers; where the server has none, the first one ends the process anyway.
    server = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    if not callable(server) or _is_worker():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_CODE))
        server(number, frame)

    signal.signal(signal.SIGTERM, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server)


def _is_worker() -> bool:
    """Tell whether a parent has started this process to share its work.

    Where whoever stops the service sends SIGTERM to all of its processes, as systemd does, a worker gets it twice: the
    parent passes on its own.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")  # loaded in every child that it has started
    return multiprocessing is not None and multiprocessing.parent_process() is not None

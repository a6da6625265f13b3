"""Whether the database answers, told within a time that no database, network or resolver can stretch."""

import contextlib
import logging
import threading
import time

from shared import db, deadline
from shared.errors import Error, TooManyConnections

log = logging.getLogger(__name__)

CHECK_TIMEOUT = 1.5  # seconds for a check to connect and ask
_WAIT = 1.8  # seconds for a caller to wait for it: the endpoint promises an answer in 2


class _Check:
    """One attempt to reach the database, in a thread of its own, shared by every caller that comes meanwhile."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.done = threading.Event()
        self.connected = False
        # A daemon, because a name server that is silent blocks getaddrinfo for long beyond any time of ours.
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def _run(self) -> None:
        try:
            with deadline.within(CHECK_TIMEOUT):
                _ask()
            self.connected = True
        except Error as error:
            # The caller waits no longer, and its answer says nothing of this: the log does.
            from shared.db.diagnosis import for_log

            log.warning("health: %s: %s", error.code, error.message, extra=for_log(error))
        except Exception:
            log.exception("health: the check itself failed")
        finally:
            self.done.set()


def _ask() -> None:
    pool = db.get_pool()
    counts = pool.statistics()
    if counts["in_use"] < counts["max_size"]:
        with pool.lease() as connection:
            connection.execute("SELECT 1")
    else:
        # Busy is not down: a connection beside the pool tells which it is, without a place in the queue.
        with (
            contextlib.suppress(TooManyConnections),  # full is not down either, while ours are in use
            contextlib.closing(db.open_connection()) as connection,
        ):
            connection.execute("SELECT 1")


_current: _Check | None = None
_lock = threading.Lock()


def is_connected(timeout: float = _WAIT) -> bool:
    """Tell whether the database answers a query, in `timeout` seconds at most; every failure is False and logged."""
    asked = time.monotonic()
    while True:
        check = _join()
        left = asked + timeout - time.monotonic()
        if not check.done.wait(max(0.0, left)):
            log.warning("health: no answer within %g s", timeout)
            return False
        if check.connected:
            return True
        if check.begun >= asked:
            return False
        # That one began before this caller asked, so its failure may be old: begin another.


def _join() -> _Check:
    global _current
    with _lock:
        # One that should be over by now hangs where no deadline reaches (a silent name server), or was lost in a fork.
        if _current is None or _current.done.is_set() or time.monotonic() - _current.begun > _WAIT:
            _current = _Check()
        return _current

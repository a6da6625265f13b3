"""Whether the database answers, told within a time that no database, network or resolver can stretch."""

import contextlib
import logging
import os
import threading
import time
import weakref
from typing import Literal

from shared import db, deadline
from shared.db.entry import is_over
from shared.db.pool import Pool
from shared.db.schema_head import REVISION
from shared.db.schema_state import compare
from shared.errors import (
    CannotConnectNow,
    ConnectionTimeout,
    DatabaseError,
    DeadlineExceeded,
    Error,
    TooManyConnections,
)

log = logging.getLogger(__name__)

# waking: it may well answer in a moment, as it starts, recovers or was at rest; or it is silent.
State = Literal["connected", "waking", "disconnected"]

CHECK_TIMEOUT = 1.5  # seconds for a check to connect and ask
_WAIT = 1.8  # seconds for a caller to wait for it: the endpoint promises an answer in 2


class _Check:
    """One attempt to reach the database, in a thread of its own, shared by every caller that comes meanwhile."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.done = threading.Event()
        self.state: State = "disconnected"
        # A daemon, because a name server that is silent blocks getaddrinfo for long beyond any time of ours.
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def _run(self) -> None:
        try:
            with deadline.within(CHECK_TIMEOUT):
                _ask()
            self.state = "connected"
        except Error as error:
            if isinstance(error, CannotConnectNow | ConnectionTimeout | DeadlineExceeded):
                self.state = "waking"
            # The caller waits no longer, and its answer says nothing of this: the log does.
            from shared.db.diagnosis import for_log

            log.warning("health: %s: %s", error.code, error.message, extra=for_log(error))
        except Exception:
            log.exception("health: the check itself failed")
        finally:
            self.done.set()


def _ask() -> None:
    global _answered
    pool = db.get_pool()
    counts = pool.statistics()
    if counts["in_use"] < counts["max_size"]:
        db.fetch_value("SELECT 1")
        if pool not in _told:
            _tell_schema()
            _told.add(pool)
    else:
        # Busy is not down: a connection beside the pool tells which it is, without a place in the queue.
        with (
            contextlib.suppress(TooManyConnections),  # full is not down either, while ours are in use
            contextlib.closing(db.open_connection()) as connection,
        ):
            connection.execute("SELECT 1")
    _answered = weakref.ref(pool), time.time()


def _tell_schema() -> None:
    """Log where the migrations did not run: once for each pool, as the log's reader knows it then."""
    try:
        version = db.fetch_value("SELECT max(version_num)::text FROM alembic_version")
    except DatabaseError:  # there is no such table, or it may not be read
        version = None
    if compare(version) == "behind":
        log.warning("the schema is behind this code: at %s, not %s; run `db migrate`", version or "nothing", REVISION)


_current: _Check | None = None
_answered: tuple[weakref.ref[Pool], float] | None = None  # whose database, and when (wall clock)
_told: weakref.WeakSet[Pool] = weakref.WeakSet()  # of which the log knows whether the schema is behind
_lock = threading.Lock()


def database_state(timeout: float = _WAIT, max_age: float = 0.0) -> State:
    """Tell whether the database answers a query, in `timeout` seconds at most; every failure is logged.

    That it answered is repeated for `max_age` seconds, without asking it; that it did not, never.
    """
    if _answered_within(max_age):
        return "connected"
    asked = time.monotonic()
    while True:
        check = _join()
        left = asked + timeout - time.monotonic()
        if not check.done.wait(max(0.0, left)):
            log.warning("health: no answer within %g s", timeout)
            return "waking"
        if check.state == "connected" or check.begun >= asked:
            return check.state
        # That one began before this caller asked, so its failure may be old: begin another.


def _answered_within(seconds: float) -> bool:
    """Tell whether the database of this process's pool did, by the wall clock: a frozen process's other one stands."""
    if _answered is None or is_over(_answered[1], time.time(), seconds):
        return False
    with contextlib.suppress(Error):
        return _answered[0]() is db.get_pool()
    return False


def _join() -> _Check:
    global _current
    with _lock:
        # One that should be over by now hangs where no deadline reaches (a silent name server).
        if _current is None or _current.done.is_set() or time.monotonic() - _current.begun > _WAIT:
            _current = _Check()
        return _current


def _after_fork() -> None:
    # The check under way is the parent's, and nobody here would ever end it.
    global _current, _lock
    _current, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""The pool: few connections, opened when first needed, checked without a round trip, owned by no thread.

A serverless process is frozen without warning, so nothing here runs in the background: what must happen to an idle
connection happens when the next one is asked for, and by the wall clock, since a frozen process's monotonic clock may
stand still.
"""

import contextlib
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType

from shared import deadline
from shared.db.drivers import Connection
from shared.errors import Error, PoolClosed, PoolTimeout

log = logging.getLogger(__name__)


class _Entry:
    """One connection and what the pool knows of it; instants are seconds of the wall clock."""

    __slots__ = ("connection", "expires", "idle_since", "suspect")

    def __init__(self, connection: Connection, expires: float) -> None:
        self.connection = connection
        self.expires = expires
        self.idle_since = 0.0
        self.suspect = False


class _Waiter:
    """A caller in the queue: handed an idle connection, or the right to open one."""

    __slots__ = ("entry", "served")

    def __init__(self) -> None:
        self.entry: _Entry | None = None
        self.served = threading.Event()


class Lease:
    """A connection lent for a `with` block. Giving it back twice harms nobody: the second time does nothing."""

    __slots__ = ("_entry", "_pool")

    def __init__(self, pool: "Pool", entry: _Entry) -> None:
        self._pool = pool
        self._entry: _Entry | None = entry

    def __enter__(self) -> Connection:
        if self._entry is None:
            raise RuntimeError("this connection was given back already")
        return self._entry.connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the connection back: rolled back if need be, closed where it broke."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._pool._checkin(entry)


class Pool:
    """Lend connections, at most `max_size` at a time, the newest idle one first so that surplus ones age out.

    `connect` opens one within the deadline and raises DatabaseUnavailable. `idle_timeout` and `max_lifetime` are
    seconds; `timeout` bounds the wait for a connection in seconds (None: only the deadline does), and `max_waiting`
    how many callers may wait at once.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        max_size: int,
        idle_timeout: float,
        timeout: float | None = 10.0,
        max_waiting: int = 100,
        max_lifetime: float = 1800.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self.max_size = max_size
        self.idle_timeout = idle_timeout
        self.timeout = timeout
        self.max_waiting = max_waiting
        self.max_lifetime = max_lifetime
        self._clock = clock
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        # Reentrant: a finalizer that the garbage collector runs may give a connection back while this thread holds it.
        self._lock = threading.RLock()
        self._drained = threading.Condition(self._lock)
        self._idle: list[_Entry] = []
        self._in_use: set[_Entry] = set()
        self._opening = 0
        self._waiters: deque[_Waiter] = deque()
        self._closed = False

    def lease(self, timeout: float | None = None) -> Lease:
        """Lend a connection, after waiting for `timeout` seconds at most (None: the pool's own).

        Raises PoolTimeout, PoolClosed, DatabaseUnavailable, DeadlineExceeded.
        """
        limit = deadline.bound(self.timeout if timeout is None else timeout)
        until = None if limit is None else time.monotonic() + limit
        while True:
            entry = self._take(until) or self._open()
            if self._usable(entry):
                return Lease(self, entry)
            self._discard(entry)

    def _take(self, until: float | None) -> _Entry | None:
        """Take an idle connection, or None with the right to open one; queue where neither is to be had."""
        with self._lock:
            if self._closed:
                raise PoolClosed("The connections of this process are closed.")
            if self._idle:
                entry = self._idle.pop()
                self._in_use.add(entry)
                return entry
            if len(self._in_use) + self._opening < self.max_size:
                self._opening += 1
                return None
            if len(self._waiters) >= self.max_waiting:
                raise self._exhausted()
            waiter = _Waiter()
            self._waiters.append(waiter)
        waiter.served.wait(None if until is None else max(0.0, until - time.monotonic()))
        with self._lock:
            if not waiter.served.is_set():
                self._waiters.remove(waiter)
                raise self._exhausted()
            if self._closed:
                raise PoolClosed("The connections of this process were closed while this caller waited for one.")
            return waiter.entry

    def _exhausted(self) -> PoolTimeout:
        return PoolTimeout(
            f"All {self.max_size} connections of this process stayed in use; {len(self._waiters)} more callers wait.",
            solutions=[
                "Look for code that holds a connection while it does something slow.",
                "Where an external pooler stands before the database, DATABASE_POOL_MAX may be larger.",
            ],
        )

    def _open(self) -> _Entry:
        try:
            connection = self._connect()
        except BaseException:
            with self._lock:
                self._opening -= 1
                self._make_room()
            raise
        # Jitter, so that connections opened together do not all expire together.
        entry = _Entry(connection, self._clock() + self.max_lifetime * random.uniform(0.9, 1.0))  # noqa: S311
        entry.idle_since = self._clock()
        with self._lock:
            self._opening -= 1
            self._in_use.add(entry)
        return entry

    def _usable(self, entry: _Entry) -> bool:
        now = self._clock()
        # A clock that was set back makes the idle time unknown, so it counts as over.
        if not 0 <= now - entry.idle_since < self.idle_timeout or now >= entry.expires:
            return False
        liveness = entry.connection.liveness()
        if liveness == "dead":
            self._suspect_all()
            return False
        if liveness == "unknown" or entry.suspect:
            try:
                entry.connection.execute("SELECT 1")
            except Error:
                self._suspect_all()
                return False
            entry.suspect = False
        return True

    def _suspect_all(self) -> None:
        """Trust no idle connection without a ping once one of them was found dead."""
        with self._lock:
            for entry in self._idle:
                entry.suspect = True

    def _checkin(self, entry: _Entry) -> None:
        if entry not in self._in_use:
            return  # lent before a fork: the parent's
        if not _clean(entry.connection):
            self._discard(entry)
            return
        entry.idle_since = self._clock()
        with self._lock:
            if self._closed or entry.idle_since >= entry.expires:
                surplus = [entry]
            else:
                surplus = self._take_expired()
                if self._waiters:
                    self._serve(entry)
                else:
                    self._in_use.discard(entry)
                    self._idle.append(entry)
        for old in surplus:
            self._discard(old)

    def _take_expired(self) -> list[_Entry]:
        """Take out what has been idle for too long: the oldest are first. The lock is held."""
        limit = self._clock() - self.idle_timeout
        expired = []
        while self._idle and self._idle[0].idle_since <= limit:
            expired.append(self._idle.pop(0))
        return expired

    def _discard(self, entry: _Entry) -> None:
        entry.connection.close()
        with self._lock:
            if entry in self._in_use:
                self._in_use.discard(entry)
                self._make_room()

    def _make_room(self) -> None:
        """Let the next in the queue open a connection in place of one that is gone; the lock is held."""
        if self._waiters:
            self._opening += 1
            self._serve(None)
        self._drained.notify_all()

    def _serve(self, entry: _Entry | None) -> None:
        waiter = self._waiters.popleft()
        waiter.entry = entry
        waiter.served.set()

    def close(self, grace: float = 5.0) -> None:
        """Close idle connections now and those in use as they come back; cancel what runs after `grace` seconds."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            while self._waiters:
                self._serve(None)
            busy = len(self._in_use)
        for entry in idle:
            entry.connection.close()
        if busy:
            log.info("closing: %d idle connections closed, waiting up to %g s for %d in use", len(idle), grace, busy)
            if not self._wait_drained(grace):
                with self._lock:
                    late = list(self._in_use)
                log.warning("closing: cancelling %d statements that still run", len(late))
                for entry in late:
                    entry.connection.cancel()
                self._wait_drained(1.0)
        with self._lock:
            log.info("closed: %d connections left in use", len(self._in_use))

    def _wait_drained(self, seconds: float) -> bool:
        with self._lock:
            return self._drained.wait_for(lambda: not self._in_use and not self._opening, seconds)

    def statistics(self) -> dict[str, int]:
        """Count the connections in use and idle, the callers that wait, and the maximum."""
        with self._lock:
            in_use = len(self._in_use) + self._opening
            return {
                "in_use": in_use,
                "idle": len(self._idle),
                "waiting": len(self._waiters),
                "max_size": self.max_size,
            }


def _clean(connection: Connection) -> bool:
    """Roll back what was left open; tell whether the connection may be lent again."""
    if connection.closed:
        return False
    if connection.in_transaction:
        # The caller's deadline may be over, and a rollback is worth its round trip all the same.
        with contextlib.suppress(Error), deadline.fresh(1.0):
            connection.execute("ROLLBACK")
    return not connection.closed and not connection.in_transaction


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


def _after_fork() -> None:
    # The connections are the parent's: closing them would end the parent's sessions. The drivers' finalizers leave
    # them alone in a child, so forgetting them is enough. The lock may be held by a thread that the child lacks.
    for pool in _pools:
        pool._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""The pool: few connections, opened when first needed, checked without a round trip, owned by no thread.

A serverless process is frozen without warning, so nothing here runs in the background: what must happen to an idle
connection happens when the next one is asked for, and by the wall clock, since a frozen process's monotonic clock may
stand still.

While the database cannot be reached, one caller at a time tries to connect, after a pause that grows and is drawn at
random, and the others share what it finds: a server that comes back meets no storm.
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

from shared import deadline
from shared.db.drivers import Connection
from shared.db.lease import Holder, Lease, caller
from shared.errors import (
    CannotConnectNow,
    ConnectionFailure,
    ConnectionTimeout,
    DatabaseUnavailable,
    Error,
    PoolClosed,
    PoolTimeout,
    TooManyConnections,
)

log = logging.getLogger(__name__)

# Of these a later attempt may well succeed: the server is full, starting, or a database at rest that wakes up.
_PASSING = (TooManyConnections, CannotConnectNow, ConnectionTimeout, ConnectionFailure)
_FIRST_PAUSE = 0.05  # seconds between attempts to connect; doubles up to the longest
_LONGEST_PAUSE = 0.5
_LOOK_AGAIN = 0.1  # seconds after which a caller that waits during an outage looks whether it may try


class Entry:
    """One connection and what the pool knows of it; instants are seconds of the wall clock."""

    __slots__ = ("connection", "expires", "idle_since", "suspect")

    def __init__(self, connection: Connection, now: float, lifetime: float) -> None:
        self.connection = connection
        self.expires = now + lifetime
        self.idle_since = now
        self.suspect = False


class _Waiter:
    """A caller in the queue. Served with a connection, the right to open one (entry None), or a failure."""

    __slots__ = ("entry", "failure", "served")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.failure: DatabaseUnavailable | None = None
        self.served = threading.Event()


class Pool:
    """Lend connections, at most `max_size` at a time, the newest idle one first so that surplus ones age out.

    `connect` opens one within the deadline and raises DatabaseUnavailable. Times are seconds. `timeout` bounds the
    wait for a connection (None: only the deadline does), `max_waiting` how many callers may wait at once,
    `surplus_timeout` how long more than one connection stays idle, so that other instances find room on the server.
    `track` remembers who holds a connection, for development: it costs a look at the stack for each.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        max_size: int,
        idle_timeout: float,
        surplus_timeout: float | None = None,
        timeout: float | None = 15.0,
        max_waiting: int = 100,
        max_lifetime: float = 1800.0,
        track: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connect = connect
        self.max_size = max_size
        self.idle_timeout = idle_timeout
        self.surplus_timeout = idle_timeout if surplus_timeout is None else surplus_timeout
        self.timeout = timeout
        self.max_waiting = max_waiting
        self.max_lifetime = max_lifetime
        self.track = track
        self._clock = clock
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        # Reentrant: a finalizer that the garbage collector runs may give a connection back while this thread holds it.
        self._lock = threading.RLock()
        self._drained = threading.Condition(self._lock)
        self._idle: list[Entry] = []  # the newest last
        self._in_use: dict[Entry, Holder | None] = {}
        self._opening = 0
        self._waiters: deque[_Waiter] = deque()
        self._closed = False
        self._failures = 0  # attempts to connect that failed since the last that did not
        self._last_failure: DatabaseUnavailable | None = None
        self._next_attempt = 0.0  # monotonic
        self._counts = {"opened": 0, "closed": 0, "lent": 0, "waited": 0, "timeouts": 0, "failed": 0}

    # Lending.

    def lease(self, timeout: float | None = None) -> Lease:
        """Lend a connection, after waiting for `timeout` at most (None: the pool's own), and never past the deadline.

        Raises PoolTimeout where all stay in use, PoolClosed, or the DatabaseUnavailable of the last attempt.
        """
        limit = deadline.bound(self.timeout if timeout is None else timeout)
        until = None if limit is None else time.monotonic() + limit
        while True:
            entry = self._take(until)
            if entry is None:
                try:
                    entry = self._open()
                except _PASSING:
                    if until is not None and time.monotonic() >= until:
                        raise
                    continue
            if self._usable(entry):
                if self.track:
                    self._in_use[entry] = caller()
                return Lease(self, entry)
            self._discard(entry)

    def _take(self, until: float | None) -> Entry | None:
        """Take an idle connection, or None with the right to open one; wait in the queue where neither is to be had."""
        waited = False
        while True:
            with self._lock:
                if self._closed:
                    raise PoolClosed("The connections of this process are closed.")
                if self._idle:
                    entry = self._idle.pop()
                    self._in_use[entry] = None
                    self._counts["lent"] += 1
                    return entry
                if self._may_open():
                    self._opening += 1
                    return None
                over = waited and until is not None and time.monotonic() >= until
                if over or len(self._waiters) >= self.max_waiting:
                    raise self._exhausted()
                waiter = _Waiter()
                self._waiters.append(waiter)
                self._counts["waited"] += not waited
                waited = True
                failing = self._failures > 0
            left = None if until is None else max(0.0, until - time.monotonic())
            if failing:
                left = _LOOK_AGAIN if left is None else min(left, _LOOK_AGAIN)
            waiter.served.wait(left)
            with self._lock:
                if waiter.served.is_set():
                    if waiter.failure is not None:
                        raise waiter.failure
                    return waiter.entry
                self._waiters.remove(waiter)

    def _may_open(self) -> bool:
        if len(self._in_use) + self._opening >= self.max_size:
            return False
        return self._failures == 0 or (self._opening == 0 and time.monotonic() >= self._next_attempt)

    def _exhausted(self) -> DatabaseUnavailable:
        self._counts["timeouts"] += 1
        if self._last_failure is not None and not self._in_use:
            return _again(self._last_failure)
        holders = "".join(f" {holder}." for holder in self._in_use.values() if holder is not None)
        error = PoolTimeout(
            f"All {len(self._in_use)} connections of this process stayed in use, and {len(self._waiters)} more callers "
            f"wait (the pool's maximum is {self.max_size}).{holders}",
            solutions=[
                "Look for code that holds a connection while it does something slow.",
                "Where an external pooler stands before the database, DATABASE_POOL_MAX may be larger.",
            ],
        )
        error.__cause__ = self._last_failure
        return error

    # Opening and closing.

    def _open(self) -> Entry:
        try:
            connection = self._connect()
        except BaseException as error:
            with self._lock:
                self._opening -= 1
                self._counts["failed"] += 1
                if isinstance(error, DatabaseUnavailable):
                    self._failed(error)
                else:
                    self._make_room()
            raise
        # Jitter, so that connections opened together do not all expire together.
        entry = Entry(connection, self._clock(), self.max_lifetime * random.uniform(0.9, 1.0))  # noqa: S311
        with self._lock:
            self._opening -= 1
            self._counts["opened"] += 1
            self._counts["lent"] += 1
            self._in_use[entry] = None
            self._failures = 0
            self._last_failure = None
            # After an outage: each that comes through lets two more try.
            self._make_room()
            self._make_room()
        return entry

    def _failed(self, error: DatabaseUnavailable) -> None:
        self._failures += 1
        self._last_failure = error
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
        self._next_attempt = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
        if not isinstance(error, _PASSING) and not self._in_use:
            while self._waiters:
                self._serve(failure=_again(error))
        self._drained.notify_all()

    def _usable(self, entry: Entry) -> bool:
        now = self._clock()
        # A clock that was set back makes the idle time unknown, so it counts as over.
        if not 0 <= now - entry.idle_since < self.idle_timeout or now >= entry.expires:
            return False
        liveness = entry.connection.liveness()
        if liveness == "alive" and not entry.suspect:
            return True
        if liveness != "dead":
            try:
                entry.connection.execute("SELECT 1")
            except Error:
                liveness = "dead"
            else:
                entry.suspect = False
                return True
        with self._lock:  # where one is dead, its neighbours may be: ping them before use
            for neighbour in self._idle:
                neighbour.suspect = True
        return False

    def _discard(self, entry: Entry) -> None:
        entry.connection.close()
        with self._lock:
            self._counts["closed"] += 1
            if entry in self._in_use:
                del self._in_use[entry]
                self._make_room()
                self._drained.notify_all()

    def _make_room(self) -> None:
        """Give the first in the queue the right to open a connection, if there is one to give; the lock is held."""
        if self._waiters and self._may_open():
            self._opening += 1
            self._serve()

    def _serve(self, entry: Entry | None = None, failure: DatabaseUnavailable | None = None) -> None:
        waiter = self._waiters.popleft()
        waiter.entry = entry
        waiter.failure = failure
        waiter.served.set()

    # Taking back.

    def give_back(self, entry: Entry) -> None:
        """Take a connection back: rolled back where a transaction is open, closed where it broke or is old."""
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
                surplus = self._take_surplus(entry.idle_since)
                if self._waiters:
                    self._in_use[entry] = None
                    self._counts["lent"] += 1
                    self._serve(entry)
                else:
                    del self._in_use[entry]
                    self._idle.append(entry)
        for old in surplus:
            self._discard(old)

    def _take_surplus(self, now: float) -> list[Entry]:
        """Take out what has been idle for too long beside the one that comes back; the lock is held."""
        limit = now - min(self.idle_timeout, self.surplus_timeout)
        surplus = []
        while self._idle and self._idle[0].idle_since <= limit:
            surplus.append(self._idle.pop(0))
        return surplus

    def close(self, grace: float = 5.0) -> None:
        """Close idle connections now and those in use as they come back; cancel what still runs after `grace`."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            while self._waiters:
                self._serve(failure=PoolClosed("The connections of this process were closed."))
            busy = len(self._in_use)
            self._counts["closed"] += len(idle)
        for entry in idle:
            entry.connection.close()
        if not busy:
            return
        log.info("closed %d idle connections; waiting up to %g s for %d in use", len(idle), grace, busy)
        if not self._wait_drained(grace):
            with self._lock:
                late = list(self._in_use)
            log.warning("cancelling %d statements that still run", len(late))
            for entry in late:
                entry.connection.cancel()
            self._wait_drained(1.0)
        log.info("connections left in use: %d", len(self._in_use))

    def _wait_drained(self, seconds: float) -> bool:
        with self._lock:
            return self._drained.wait_for(lambda: not self._in_use and not self._opening, seconds)

    def holder(self, entry: Entry) -> str:
        """Say who holds a connection, where that is remembered."""
        return str(self._in_use.get(entry) or "who, only development and test remember")

    def statistics(self) -> dict[str, int]:
        """Count connections in use and idle, callers that wait, and what happened since the pool began.

        `lent` counts loans, `waited` callers that had to queue, `timeouts` those that queued in vain, `failed`
        attempts to connect.
        """
        with self._lock:
            return {
                "max_size": self.max_size,
                "in_use": len(self._in_use) + self._opening,
                "idle": len(self._idle),
                "waiting": len(self._waiters),
                **self._counts,
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


def _again(error: DatabaseUnavailable) -> DatabaseUnavailable:
    """Copy an error for another caller: one exception raised in two threads would mix their tracebacks."""
    copy = type(error)(error.message, solutions=error.solutions, sqlstate=error.sqlstate)
    copy.__cause__ = error
    return copy


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


def _after_fork() -> None:
    # The connections are the parent's: closing them would end the parent's sessions. The drivers' finalizers leave
    # them alone in a child, so forgetting them is enough. The lock may be held by a thread that the child lacks.
    for pool in _pools:
        pool._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""The pool: few connections, opened when first needed, checked without a round trip, owned by no thread.

A serverless process is frozen without warning, so nothing here runs in the background: what must happen to an idle
connection happens when the next one is asked for, and by the wall clock, since a frozen process's monotonic clock may
stand still.

While the database cannot be reached, one caller at a time tries to connect, after a pause that grows and is drawn at
random, and the others share what it finds: a server that comes back meets no storm. That nobody listens is waited out
for the first seconds of an outage, for as long as a restart takes; later callers are told at once. After the server was
full, the callers of a pool that has a connection share it for a while, and leave free places to instances that have
none.
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
from shared.db.entry import Entry, Waiter, is_over
from shared.db.lease import Holder, Lease, caller
from shared.errors import (
    CannotConnectNow,
    ConnectionFailure,
    ConnectionRefused,
    ConnectionTimeout,
    DatabaseUnavailable,
    DeadlineExceeded,
    Error,
    PoolClosed,
    PoolTimeout,
    TooManyConnections,
)
from shared.request_log import count_pool_wait

log = logging.getLogger(__name__)

# Of these a later attempt may well succeed: the server is full, starting, or a database at rest that wakes up.
_PASSING = (TooManyConnections, CannotConnectNow, ConnectionTimeout, ConnectionFailure)
_RESTART = 5.0  # seconds for which a refused connection is one of them too, if the database had been there before
_ANOTHER = 60.0  # seconds without an attempt after which a refused connection begins another outage
_PROOF_TIMEOUT = 10.0  # seconds for a pooler to show that it has a server
_FIRST_PAUSE = 0.05  # seconds between attempts to connect; doubles up to the longest
_LONGEST_PAUSE = 0.5
_FIRST_WINDOW = 2  # connections opened at once at first: by the time they are there, fewer may be needed
_SHARING = 3.0  # seconds for which our callers share one connection after the server was full: others have none
_LOOK_AGAIN = 0.1  # seconds after which a caller that waits during an outage looks whether it may try
_PING_TIMEOUT = 1.0  # seconds for a suspect connection to answer
_TELLING = 1.0  # seconds that an attempt to connect must have had, for its timeout to tell more than an earlier failure


class Pool:
    """Lend connections, at most `max_size` at a time, the newest idle one first so that surplus ones age out.

    `connect` opens one within the deadline, which the server closes soon after the given idle time, and raises
    DatabaseUnavailable. Times are seconds. `timeout` bounds the wait for a connection (None: only the deadline does),
    `max_waiting` how many callers may wait at once, `surplus_timeout` how long connections beyond the first stay idle,
    so that other instances find room on the server: this one may be frozen, and only the server can close them then.
    `has_pooler` tells whether a pooler is known to answer in the server's place.
    `track` remembers who holds a connection, for development: it costs a look at the stack for each.
    """

    def __init__(
        self,
        connect: Callable[[float], Connection],
        *,
        max_size: int,
        idle_timeout: float,
        surplus_timeout: float | None = None,
        timeout: float | None = 15.0,
        max_waiting: int = 100,
        max_lifetime: float = 1800.0,
        has_pooler: Callable[[], bool] = lambda: False,
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
        self._has_pooler = has_pooler
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
        self._has_first = False  # or opens it
        self._waiters: deque[Waiter] = deque()
        self._closed = False
        self._draining = False
        self._failures = 0  # attempts to connect that failed since the last that did not
        self._refused_since: float | None = None  # monotonic; as long as nothing but refusals came
        self._refused_last = 0.0  # monotonic
        self._last_failure: DatabaseUnavailable | None = None
        self._next_attempt = 0.0  # monotonic
        self._full_until = 0.0  # monotonic
        self._has_lost = False  # a connection, since a pooler has shown that it has a server
        self._window = _FIRST_WINDOW  # how many may connect at once: one after a failure, twice as many after a success
        self._counts = {"opened": 0, "closed": 0, "lent": 0, "waited": 0, "timeouts": 0, "failed": 0}

    # Lending.

    def lease(self, timeout: float | None = None) -> Lease:
        """Lend a connection, after waiting for `timeout` at most (None: the pool's own), and never past the deadline.

        Raises PoolTimeout where all stay in use, PoolClosed, the DatabaseUnavailable of the last attempt, or
        DeadlineExceeded where no time is left.
        """
        begun = time.monotonic()
        limit = deadline.bound(self.timeout if timeout is None else timeout)
        if limit == 0 and deadline.remaining() == 0:
            raise DeadlineExceeded("The time was used up before a connection was asked for.")
        until = None if limit is None else begun + limit
        try:
            return self._lease(until)
        finally:
            count_pool_wait(time.monotonic() - begun)

    def _lease(self, until: float | None) -> Lease:
        while True:
            entry = self._take(until)
            if entry is None:
                try:
                    entry = self._open(until)
                except DatabaseUnavailable as error:
                    if not self._is_passing(error) or (until is not None and time.monotonic() >= until):
                        raise
                    continue
            try:
                usable = self._usable(entry)
            except BaseException:  # such as KeyboardInterrupt in a ping
                self._discard(entry)
                raise
            if usable:
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
                waiter = Waiter()
                self._waiters.append(waiter)
                self._counts["waited"] += not waited
                waited = True
                failing = self._failures > 0 or time.monotonic() < self._full_until
            left = None if until is None else max(0.0, until - time.monotonic())
            if failing:
                left = _LOOK_AGAIN if left is None else min(left, _LOOK_AGAIN)
            try:
                waiter.served.wait(left)
            except BaseException:  # such as KeyboardInterrupt
                self._leave_queue(waiter)
                raise
            with self._lock:
                if not waiter.served.is_set():
                    self._waiters.remove(waiter)
                elif waiter.failure is not None:
                    raise waiter.failure
                elif not waiter.again:
                    return waiter.entry

    def _leave_queue(self, waiter: Waiter) -> None:
        """Pass on what a caller was served that no longer wants it."""
        with self._lock:
            if not waiter.served.is_set():
                self._waiters.remove(waiter)
            elif waiter.entry is None and waiter.failure is None and not waiter.again:
                self._opening -= 1
                self._make_room()
        if waiter.entry is not None:
            self.give_back(waiter.entry)

    def _may_open(self) -> bool:
        ours, now = len(self._in_use) + self._opening, time.monotonic()
        if ours >= self.max_size or self._opening >= self._window or now < self._next_attempt:
            return False
        return ours == 0 or now >= self._full_until

    def _exhausted(self) -> DatabaseUnavailable:
        self._counts["timeouts"] += 1
        if not self._in_use:
            if (known := self._known_failure()) is not None:
                return _again(known)
            if self._opening:
                return ConnectionTimeout("The database did not answer an attempt to connect that is still under way.")
        holders = "".join(f" {holder}." for holder in self._in_use.values() if holder is not None)
        error = PoolTimeout(
            f"All {len(self._in_use)} connections of this process stayed in use, and {len(self._waiters)} more callers "
            f"wait (the pool's maximum is {self.max_size}).{holders}",
            solutions=[
                "Look for code that holds a connection while it does something slow.",
                "Where an external pooler stands before the database, DATABASE_POOL_MAX may be larger.",
            ],
        )
        error.__cause__ = self._known_failure()
        return error

    def _known_failure(self) -> DatabaseUnavailable | None:
        """Give why connections cannot be made, where that is so at the moment."""
        return self._last_failure if self._failures or time.monotonic() < self._full_until else None

    # Opening and closing.

    def _open(self, until: float | None) -> Entry:
        left = None if until is None else max(0.0, until - time.monotonic())
        with self._lock:
            is_first, self._has_first = not self._has_first, True
        idle_timeout = self.idle_timeout if is_first else self.surplus_timeout
        try:
            with contextlib.nullcontext() if left is None else deadline.within(left):
                connection = self._connect(idle_timeout)
                self._prove(connection)
        except BaseException as error:
            with self._lock:
                self._opening -= 1
                self._has_first = self._has_first and not is_first
                self._counts["failed"] += 1
                if not isinstance(error, DatabaseUnavailable):
                    self._make_room()
                    raise
                known = self._known_failure()
                hurried = isinstance(error, ConnectionTimeout) and left is not None and left < _TELLING
                if known is None or not hurried:
                    self._failed(error)
                    raise
                self._failed(known)
            raise _again(known) from known
        # Jitter, so that connections opened together do not all expire together.
        lifetime = self.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311
        entry = Entry(connection, self._clock(), is_first=is_first, idle_timeout=idle_timeout, lifetime=lifetime)
        with self._lock:
            self._opening -= 1
            self._counts["opened"] += 1
            self._counts["lent"] += 1
            self._in_use[entry] = None
            self._failures = 0
            self._refused_since = None
            self._next_attempt = 0.0
            if time.monotonic() >= self._full_until:  # until then it is why others wait
                self._last_failure = None
            # Each that comes through lets two more try.
            self._window = min(self.max_size, self._window * 2)
            self._make_room()
            self._make_room()
        return entry

    def _prove(self, connection: Connection) -> None:
        """Have a pooler show that it has a server, after a connection was lost: it lets us in without one."""
        if not self._has_lost or not self._has_pooler():
            return
        try:
            with deadline.within(_PROOF_TIMEOUT):
                connection.execute("SELECT 1")
        except DeadlineExceeded:
            connection.close()
            # In the words of the wire probe.
            raise ConnectionTimeout("A pooler answers, and has no server: authenticated, then silence.") from None
        except Error as error:
            connection.close()
            raise CannotConnectNow(
                f"A pooler answers, and has no server: {error.message}", sqlstate=error.sqlstate
            ) from error
        except BaseException:
            connection.close()
            raise
        self._has_lost = False

    def _failed(self, error: DatabaseUnavailable) -> None:
        now, is_news = time.monotonic(), error is not self._last_failure
        self._failures += 1
        self._last_failure = error
        self._window = 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
        if isinstance(error, TooManyConnections) and is_news:
            self._full_until = now + _SHARING
        if not isinstance(error, ConnectionRefused):
            self._refused_since = None
        elif is_news:
            if self._refused_since is None or now - self._refused_last > _ANOTHER:
                self._refused_since = now
            self._refused_last = now
        self._next_attempt = now + pause * random.uniform(0.5, 1.0)  # noqa: S311
        if not self._is_passing(error) and not self._in_use:
            while self._waiters:
                self._serve(failure=_again(error))
        elif self._failures == 1:  # who queued in better times does not look whether it may try
            while self._waiters:
                self._serve(again=True)
        self._drained.notify_all()

    def _is_passing(self, error: DatabaseUnavailable) -> bool:
        """Tell whether another attempt, within the caller's time, may well succeed."""
        if isinstance(error, ConnectionRefused):
            since = self._refused_since
            return self._counts["opened"] > 0 and since is not None and time.monotonic() - since < _RESTART
        return isinstance(error, _PASSING)

    def _usable(self, entry: Entry) -> bool:
        now = self._clock()
        if entry.is_stale(now) or entry.is_old(now):
            return False
        liveness = entry.connection.liveness()
        if liveness == "alive" and not entry.suspect:
            return True
        if liveness != "dead":
            try:
                with deadline.within(_PING_TIMEOUT):
                    entry.connection.execute("SELECT 1")
            except Error:
                if entry.suspect:  # the second that is dead: so are the others, and to ping each may take long
                    self._discard_suspects()
            else:
                entry.suspect = False
                return True
        self._suspect_neighbours()
        return False

    def _suspect_neighbours(self) -> None:
        """Where one is dead, its neighbours may be: have them pinged before use."""
        with self._lock:
            self._has_lost = True
            for neighbour in self._idle:
                neighbour.suspect = True

    def _discard_suspects(self) -> None:
        with self._lock:
            suspects = [entry for entry in self._idle if entry.suspect]
            self._idle = [entry for entry in self._idle if not entry.suspect]
        for entry in suspects:
            self._discard(entry)

    def _discard(self, entry: Entry) -> None:
        entry.connection.close()
        with self._lock:
            self._counts["closed"] += 1
            self._has_first = self._has_first and not entry.is_first
            if entry in self._in_use:
                del self._in_use[entry]
                self._make_room()
                self._drained.notify_all()

    def _make_room(self) -> None:
        """Give the first in the queue the right to open a connection, if there is one to give; the lock is held."""
        if self._waiters and self._may_open():
            self._opening += 1
            self._serve()

    def _serve(
        self, entry: Entry | None = None, failure: DatabaseUnavailable | None = None, again: bool = False
    ) -> None:
        waiter = self._waiters.popleft()
        waiter.entry = entry
        waiter.failure = failure
        waiter.again = again
        waiter.served.set()

    # Taking back.

    def give_back(self, entry: Entry) -> None:
        """Take a connection back: rolled back where a transaction is open, closed where it broke or is old."""
        if entry not in self._in_use:
            return  # lent before a fork: the parent's
        if not _clean(entry.connection):
            self._suspect_neighbours()
            self._discard(entry)
            return
        entry.idle_since = self._clock()
        with self._lock:
            self._refused_since = None
            if self._closed or entry.is_old(entry.idle_since):
                surplus = [entry]
            else:
                surplus = self._take_surplus(entry.idle_since)
                if self._waiters:
                    self._in_use[entry] = None
                    self._counts["lent"] += 1
                    self._serve(entry)
                elif self._draining:
                    surplus.append(entry)
                else:
                    del self._in_use[entry]
                    self._idle.append(entry)
        for old in surplus:
            self._discard(old)

    def _take_surplus(self, now: float) -> list[Entry]:
        """Take out what has been idle for too long beside the one that comes back; the lock is held."""
        limit = min(self.idle_timeout, self.surplus_timeout)
        surplus = []
        while self._idle and is_over(self._idle[0].idle_since, now, limit):
            surplus.append(self._idle.pop(0))
        return surplus

    def drain(self) -> None:
        """Close idle connections now, and keep none of those that come back, until `close`."""
        with self._lock:
            self._draining = True
            idle, self._idle = self._idle, []
        for entry in idle:
            self._discard(entry)

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
_inherited: list[Entry] = []  # in a forked child, so that their finalizers do not run


def _after_fork() -> None:
    # The connections are the parent's, and closing them would end its sessions. Their descriptors lead nowhere from
    # now on, so that nothing this process still does with one, such as leaving a transaction's block, reaches the
    # server; nor does it keep the parent's sessions alive. The lock may be held by a thread that the child lacks.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for pool in _pools:
        for entry in (*pool._idle, *pool._in_use):
            if not entry.connection.closed:
                os.dup2(nowhere, entry.connection.raw.fileno(), inheritable=False)
                _inherited.append(entry)
        pool._begin()
    os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""A model of many instances, their pools and one server: who holds how many connections, event by event.

Standard library only, and the same seed gives the same run. It follows shared/db/pool.py: the newest idle connection
first; idle limits by the wall clock, and looked at only when a connection is asked for or given back; connections
beyond the first have a limit of their own; and the server closes what stayed idle a little longer than that. Left out:
processors, which all instances of a test share, lost packets, and the pool's courtesy after the server was full.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.scenario import Outcome, Scenario

_RETRY = (0.25, 0.5)  # seconds between attempts while the server is full (shared/db/pool.py)


@dataclass(eq=False)
class _Connection:
    limit: float  # seconds that the instance keeps it idle
    is_first: bool
    idle_since: float = 0.0
    is_closed: bool = False


class _Instance:
    """One instance: its pool, what it works on, and what waits."""

    def __init__(self) -> None:
        self.idle: list[_Connection] = []  # the newest last
        self.connections = 0  # and those that are being opened
        self.has_first = False
        self.active = 0
        self.is_frozen = False
        self.is_stopped = False  # by somebody, and not for want of requests
        self.last_answer = 0.0
        self.works_until = 0.0
        self.queue: deque[Callable[[], None]] = deque()  # for the platform's concurrency, or while stopped
        self.waiters: deque[Callable[[_Connection], None]] = deque()  # for a connection


def simulate(scenario: Scenario, seed: int = 1) -> Outcome:
    """Run a scenario to its end."""
    return _Run(scenario, seed).outcome()


class _Run:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._random = random.Random(seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._outcome = Outcome()
        self._clients = 0  # connections of the instances, to the server or to the pooler
        self._server = 0  # server connections of the pooler, and how many of them work
        self._working = 0
        self._for_server: deque[Callable[[], None]] = deque()
        self._instances = [_Instance() for _ in range(scenario.instances)]

    def outcome(self) -> Outcome:
        scenario = self._scenario
        for instance in self._instances:
            if scenario.rate:
                self._after(self._random.expovariate(scenario.rate), self._arrive, instance)
            for _ in range(scenario.users):
                first = 0.0 if scenario.burst else self._random.uniform(0, scenario.interval)
                self._after(first, self._ask, instance, scenario.burst)
        for freeze in scenario.freezes:
            for instance in self._instances[: freeze.instances]:
                self._after(freeze.begin, self._stop, instance)
                self._after(freeze.end, self._go_on, instance)
        while self._events and self._events[0][0] <= scenario.seconds:
            self._now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)
        return self._outcome

    def _after(self, seconds: float, event: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), event, arguments))

    # Requests.

    def _arrive(self, instance: _Instance) -> None:
        self._after(self._random.expovariate(self._scenario.rate), self._arrive, instance)
        self._request(instance, lambda: None)

    def _ask(self, instance: _Instance, spreads: bool = False) -> None:
        """Have a user ask; after a burst they ask again at moments of their own."""
        if instance.is_stopped:
            instance.queue.append(lambda: self._ask(instance, spreads))
            return
        interval = self._scenario.interval
        due = self._now + interval + (self._random.uniform(0, interval) if spreads else 0.0)

        def answered() -> None:
            self._after(max(0.0, due - self._now), self._ask, instance)

        self._request(instance, answered)

    def _request(self, instance: _Instance, answered: Callable[[], None]) -> None:
        if instance.is_stopped or instance.active >= self._scenario.concurrency:
            instance.queue.append(lambda: self._begin(instance, answered))
        else:
            self._begin(instance, answered)

    def _begin(self, instance: _Instance, answered: Callable[[], None]) -> None:
        instance.active += 1
        self._thaw(instance)
        instance.works_until = max(self._now, instance.works_until) + self._scenario.handling
        self._after(instance.works_until - self._now, self._handled, instance, answered)

    def _handled(self, instance: _Instance, answered: Callable[[], None]) -> None:
        asked = self._now
        self._lease(instance, lambda connection: self._serve(instance, connection, asked, answered))

    def _serve(self, instance: _Instance, connection: _Connection, asked: float, answered: Callable[[], None]) -> None:
        def work() -> None:
            self._outcome.waits.append(self._now - asked)
            weights, seconds = zip(*self._scenario.service, strict=True)
            held = self._random.choices(seconds, weights)[0]
            self._after(held, self._answer, instance, connection, answered)

        if self._scenario.pooler is None:
            work()
        else:
            self._with_server(work)

    def _answer(self, instance: _Instance, connection: _Connection, answered: Callable[[], None]) -> None:
        if self._scenario.pooler is not None:
            self._server_is_free()
        instance.active -= 1
        instance.last_answer = self._now
        self._give_back(instance, connection)
        answered()
        if instance.queue and not instance.is_stopped:
            instance.queue.popleft()()
        if self._scenario.freeze_after is not None:
            self._after(self._scenario.freeze_after, self._rest, instance)

    # Frozen.

    def _rest(self, instance: _Instance) -> None:
        after = self._scenario.freeze_after
        if after is not None and not instance.active and self._now - instance.last_answer >= after:
            instance.is_frozen = True

    def _thaw(self, instance: _Instance) -> None:
        if instance.is_frozen:
            instance.is_frozen = False
            if self._scenario.pooling.timer:  # timers that were due go off
                for connection in list(instance.idle):
                    self._timer(instance, connection, connection.idle_since)

    def _stop(self, instance: _Instance) -> None:
        instance.is_stopped = instance.is_frozen = True

    def _go_on(self, instance: _Instance) -> None:
        instance.is_stopped = False
        self._thaw(instance)
        while instance.queue and instance.active < self._scenario.concurrency:
            instance.queue.popleft()()

    # The pool, as shared/db/pool.py has it.

    def _lease(self, instance: _Instance, use: Callable[[_Connection], None]) -> None:
        while instance.idle:
            connection = instance.idle.pop()
            if not connection.is_closed and self._now - connection.idle_since < connection.limit:
                use(connection)
                return
            self._close(instance, connection)
        if instance.connections < self._scenario.pooling.maximum:
            instance.connections += 1
            self._open(instance, use)
        else:
            instance.waiters.append(use)

    def _open(self, instance: _Instance, use: Callable[[_Connection], None]) -> None:
        if self._scenario.pooler is None and self._clients >= self._scenario.slots:
            self._outcome.refused += 1
            self._after(self._random.uniform(*_RETRY), self._open, instance, use)
            return
        pooling = self._scenario.pooling
        is_first, instance.has_first = not instance.has_first, True
        connection = _Connection(pooling.idle if is_first else pooling.surplus, is_first)
        self._outcome.opened += 1
        self._count(clients=1)
        self._after(self._scenario.connect, use, connection)

    def _give_back(self, instance: _Instance, connection: _Connection) -> None:
        pooling = self._scenario.pooling
        while instance.idle and self._now - instance.idle[0].idle_since >= min(pooling.idle, pooling.surplus):
            self._close(instance, instance.idle.pop(0))
        if instance.waiters:
            instance.waiters.popleft()(connection)
            return
        connection.idle_since = self._now
        instance.idle.append(connection)
        if pooling.server is not None:
            self._after(connection.limit + pooling.server, self._end_session, connection, self._now)
        if pooling.timer:
            self._after(connection.limit, self._timer, instance, connection, self._now)

    def _close(self, instance: _Instance, connection: _Connection) -> None:
        instance.connections -= 1
        instance.has_first = instance.has_first and not connection.is_first
        if not connection.is_closed:
            connection.is_closed = True
            self._count(clients=-1)

    def _end_session(self, connection: _Connection, since: float) -> None:
        """Close it on the server's side: the instance finds out when it next looks."""
        if not connection.is_closed and connection.idle_since == since:
            connection.is_closed = True
            self._count(clients=-1)

    def _timer(self, instance: _Instance, connection: _Connection, since: float) -> None:
        is_due = connection.idle_since == since and self._now - since >= connection.limit
        if is_due and connection in instance.idle and not instance.is_frozen:
            instance.idle.remove(connection)
            self._close(instance, connection)

    # The pooler and the server.

    def _with_server(self, work: Callable[[], None]) -> None:
        if self._working < self._server:
            self._working += 1
            work()
        elif self._server < (self._scenario.pooler or 0):
            self._working += 1
            self._count(server=1)
            self._after(self._scenario.connect, work)
        else:
            self._for_server.append(work)

    def _server_is_free(self) -> None:
        if self._for_server:
            self._for_server.popleft()()
        else:
            self._working -= 1

    def _count(self, *, clients: int = 0, server: int = 0) -> None:
        self._clients += clients
        self._server += server
        held = self._clients if self._scenario.pooler is None else self._server
        if held != self._outcome.held[-1][1]:
            self._outcome.held.append((self._now, held))

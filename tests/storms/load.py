"""Users of the instances: each sends a request, waits for the answer, and goes on at its pace."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple

from tests.shared.db.watching import until
from tests.storms.fleet import Member
from tests.storms.function import ITEMS
from tests.storms.wire import Reply, Wire

Kind = Literal["read", "write", "slow"]
MIX: Mapping[Kind, float] = {"read": 0.6, "write": 0.3, "slow": 0.1}
SLOW = 100  # milliseconds in which a slow read holds its connection
_numbers = itertools.count()  # of writes, in all storms: what one enters is never taken for another's


class Answer(NamedTuple):
    """What a user was told. `status` is 0 where the instance gave no answer; `said` tells what was not well."""

    instance: int
    kind: Kind
    number: int
    begun: float  # monotonic
    ended: float
    status: int
    said: str

    @property
    def is_good(self) -> bool:
        """Tell whether all is done."""
        return self.status == 200


class _Target:
    """An instance as its users see it."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_at_rest = asyncio.Event()
        self.is_at_rest.set()
        self.is_retired = False
        self.busy = 0
        self.answered = 0
        self.last_good = 0.0  # when the last request began that was answered well


class Load:
    """Users of a fleet, `users` an instance, each of which sends a request every `interval` seconds.

    All begin at the same moment where it is a burst, spread over the interval where it is not.
    """

    def __init__(self, *, users: int = 2, interval: float = 0.5, burst: bool = False) -> None:
        self.users = users
        self.interval = interval
        self.answers: list[Answer] = []
        self._burst = burst
        self._random = random.Random(1)
        self._targets: dict[int, _Target] = {}
        self._working: list[Future[None]] = []
        self._is_over = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for number in self._targets:
            self._do(self._open, number)
        for work in self._working:
            work.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, members: Iterable[Member]) -> None:
        """Let users come to these instances."""
        begin = time.monotonic() + 0.2
        for member in members:
            self._targets[member.number] = target = _Target(member)
            for _ in range(self.users):
                first = begin + (0 if self._burst else self._random.uniform(0, self.interval))
                work = self._use(target, first, random.Random(self._random.random()))
                self._working.append(asyncio.run_coroutine_threadsafe(work, self._loop))

    def pause(self, members: Sequence[Member]) -> None:
        """Keep the users of these waiting, and return once their instances have answered all."""
        waiting = [self._start(self._pause(self._targets[member.number])) for member in members]
        for one in waiting:
            one.result()

    def resume(self, members: Iterable[Member]) -> None:
        """Let their users go on."""
        for member in members:
            self._do(self._open, member.number)

    def retire(self, members: Iterable[Member]) -> None:
        """Send them nothing new; what they have, they are to answer."""
        for member in members:
            self._targets[member.number].is_retired = True

    def more(self, number: int, members: Iterable[Member], timeout: float = 60.0) -> None:
        """Wait until each of these has given so many more answers."""
        wanted = {member.number: self._targets[member.number].answered + number for member in members}
        until(lambda: all(self._targets[n].answered >= least for n, least in wanted.items()), timeout)

    def wait_for_good(self, since: float, members: Iterable[Member], timeout: float = 60.0) -> None:
        """Wait until each has answered well a request that began since then."""
        targets = [self._targets[member.number] for member in members]
        until(lambda: all(target.last_good > since for target in targets), timeout)

    def _start(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _do(self, what: Callable[[int], None], number: int) -> None:
        self._loop.call_soon_threadsafe(what, number)

    def _open(self, number: int) -> None:
        self._targets[number].gate.set()

    async def _pause(self, target: _Target) -> None:
        target.gate.clear()
        await target.is_at_rest.wait()

    async def _use(self, target: _Target, first: float, chance: random.Random) -> None:
        wire = Wire(target.member.instance.port)
        due = first
        try:
            while True:
                await asyncio.sleep(due - time.monotonic())
                while not target.gate.is_set():
                    await target.gate.wait()
                if self._is_over or target.is_retired:
                    return
                is_first, due = due == first, time.monotonic() + self.interval
                target.busy += 1
                target.is_at_rest.clear()
                try:
                    await self._send(wire, target, _kind(chance))
                finally:
                    target.busy -= 1
                    if not target.busy:
                        target.is_at_rest.set()
                if is_first and self._burst:
                    due += chance.uniform(0, self.interval)
        finally:
            wire.close()

    async def _send(self, wire: Wire, target: _Target, kind: Kind) -> None:
        instance, number, begun = target.member.number, next(_numbers), time.monotonic()
        try:
            if kind == "write":
                reply = await wire.ask("POST", f"/api/ledger/{instance}/{number}")
            elif kind == "read":
                reply = await wire.ask("GET", f"/api/item/{number % ITEMS}")
            else:
                reply = await wire.ask("GET", f"/api/pause/{SLOW}")
            status, said = reply.status, _said(kind, number, reply)
        except (OSError, EOFError, TimeoutError) as error:
            status, said = 0, repr(error)
        self.answers.append(Answer(instance, kind, number, begun, time.monotonic(), status, said))
        target.answered += 1
        if status == 200:
            target.last_good = begun


def _kind(chance: random.Random) -> Kind:
    return chance.choices(list(MIX), list(MIX.values()))[0]


def _said(kind: Kind, number: int, reply: Reply) -> str:
    """Say what is not well with an answer, or what its problem document says."""
    if reply.status != 200:
        if reply.headers.get("content-type") != "application/problem+json":
            return f"no problem document: {reply.body!r}"
        if reply.status == 503 and not reply.headers.get("retry-after", "").isdigit():
            return "no Retry-After"
        return str(json.loads(reply.body)["detail"])
    if kind == "read" and json.loads(reply.body) != {"id": number % ITEMS, "name": f"item {number % ITEMS}"}:
        return f"a wrong result: {reply.body!r}"
    return ""

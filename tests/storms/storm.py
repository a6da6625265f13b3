"""A storm: a fleet under load while something happens to it, and what must hold at its end."""

from __future__ import annotations

import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from shared.errors import TransactionResolutionUnknown
from shared.web.problem import problem_from
from tests.storms.fleet import LIMITS, Fleet, Member
from tests.storms.load import Answer, Load
from tests.storms.watch import Series, Watch

LONGEST = 30.0  # seconds for a request: REQUEST_TIMEOUT, and the answer itself on a busy machine
AWAY = 3.0  # seconds that a server or a pooler is away in an outage: larger ones than the tests' take longer to restart


@dataclass
class Outcome:
    """What a storm found, for the tables, the plots, and whoever simulates it. Times in seconds."""

    storm: str
    way: str
    instances: int
    users: int  # an instance
    interval: float  # between two requests of a user
    answers: Sequence[Answer]
    held: Series
    outage: tuple[float, float] | None = None  # from when to when the server or the pooler was away
    recovery: float | None = None  # after its end, until every instance had answered well, and nothing failed any more
    frozen: tuple[float, float] | None = None
    held_by_frozen: Series = field(default_factory=list)

    @property
    def failed(self) -> list[Answer]:
        """List the requests that were not answered well."""
        return [answer for answer in self.answers if not answer.is_good]

    @property
    def most(self) -> int:
        """The most connections that were held at once."""
        return int(max(number for _, number in self.held))

    def milliseconds(self, percentile: int) -> float:
        """Give how long the requests took that were answered well, without those that are slow on purpose."""
        took = [answer.ended - answer.begun for answer in self.answers if answer.is_good and answer.kind != "slow"]
        return 1000 * statistics.quantiles(took, n=100)[percentile - 1]


class Storm:
    """One under way: `load` and `watch` run."""

    def __init__(self, name: str, fleet: Fleet, load: Load, watch: Watch) -> None:
        self.name = name
        self.fleet = fleet
        self.load = load
        self.watch = watch
        self._instances = len(fleet.members)
        self._outage: tuple[float, float] | None = None
        self._stopped = 0.0  # when it was gone (monotonic)
        self._frozen: tuple[float, float] | None = None
        self._held_by_frozen: Series = []

    @property
    def is_crowded(self) -> bool:
        """Tell whether there are more instances than slots, each of which keeps its first connection for a while."""
        return self.fleet.way.pooler is None and self._instances > LIMITS["max_connections"]

    def goes_on(self, requests: int = 10) -> None:
        """Wait until every instance has answered so many more requests."""
        self.load.more(requests, self.fleet.members)

    def outage(self, stop: Callable[[], None], start: Callable[[], None]) -> None:
        """Have something go away and come back, and wait until every instance answers again."""
        gone = time.monotonic()
        stop()
        self._stopped = time.monotonic()
        time.sleep(AWAY)
        start()
        back = time.monotonic()
        self._outage = gone, back
        self.load.wait_for_good(back, self.fleet.members)

    def freeze(self, members: Sequence[Member]) -> float:
        """Freeze some instances between two requests; give the moment (monotonic)."""
        self.load.pause(members)
        for member in members:
            member.freeze()
        return time.monotonic()

    def thaw(self, members: Sequence[Member], since: float) -> None:
        """Thaw them, note from when to when they were frozen and what they held, and let their users go on."""
        self._frozen = since, time.monotonic()
        self._held_by_frozen = self.watch.series({member.name for member in members})
        for member in members:
            member.thaw()
        self.load.resume(members)

    def outcome(self) -> Outcome:
        """Say what was found, after the end."""
        found = Outcome(
            self.name,
            self.fleet.way.name,
            self._instances,
            self.load.users,
            self.load.interval,
            self.load.answers,
            self.watch.series(),
            outage=self._relative(self._outage),
            frozen=self._relative(self._frozen),
            held_by_frozen=self._held_by_frozen,
        )
        if self._outage is not None:
            back = self._outage[1]
            first: dict[int, float] = {}
            for answer in found.answers:
                if answer.is_good and answer.begun > back:
                    first.setdefault(answer.instance, answer.ended)
            found.recovery = max([*first.values(), *(answer.ended for answer in found.failed)]) - back
        return found

    def check(self) -> Outcome:
        """Assert that every failure was by nature and clean, and that the ledger is right."""
        found = self.outcome()
        report(found, self.fleet)
        for answer in found.answers:
            assert not (answer.is_good and answer.said), answer
            assert answer.ended - answer.begun < LONGEST, answer
        for failure in found.failed:
            assert self._may_fail(failure), failure
        assert len(found.failed) < len(found.answers) / 2  # in the crowded one
        check_ledger(self.fleet, found.answers)
        return found

    def _may_fail(self, answer: Answer) -> bool:
        if self.is_crowded:
            return is_clean(answer)
        # What was under way when it went: the transactions run again, but for those at their COMMIT.
        was_under_way = self._outage is not None and answer.begun < self._stopped and answer.ended > self._outage[0]
        return was_under_way and ((answer.kind == "read" and is_clean(answer)) or is_unknown(answer))

    def _relative(self, times: tuple[float, float] | None) -> tuple[float, float] | None:
        return times and (round(times[0] - self.watch.begun, 1), round(times[1] - self.watch.begun, 1))


@contextmanager
def storm(name: str, fleet: Fleet, load: Load) -> Iterator[Storm]:
    """Run one; the block is what happens. The load ends with it, and every request is answered."""
    with Watch(fleet.way) as watch, load:
        load.add(fleet.members)
        yield Storm(name, fleet, load, watch)


def is_clean(answer: Answer) -> bool:
    """Tell whether the user was told, as it should be told, to come again."""
    return answer.status == 503 and not answer.said.startswith("no ")


def is_unknown(answer: Answer) -> bool:
    """Tell whether the user was told that nobody knows whether the write was kept."""
    logging.disable()
    try:
        unknown = problem_from(TransactionResolutionUnknown(""))
    finally:
        logging.disable(logging.NOTSET)
    return answer.kind == "write" and (answer.status, answer.said) == (unknown.status, unknown.detail)


def check_ledger(fleet: Fleet, answers: Sequence[Answer]) -> None:
    """Compare what users were told of their writes with what the database holds."""
    writes = {(answer.instance, answer.number): answer for answer in answers if answer.kind == "write"}
    with psycopg.connect(fleet.way.server.admin_url(fleet.way.database)) as connection:
        rows = connection.execute("SELECT instance, number FROM ledger").fetchall()
        accounts = connection.execute("SELECT instance, entries FROM account WHERE entries > 0").fetchall()
    found = Counter((instance, number) for instance, number in rows)
    assert [entry for entry, times in found.items() if times > 1] == [], "doubled"
    assert dict(accounts) == Counter(instance for instance, _ in rows), "half of a transaction"
    lost = [entry for entry, answer in writes.items() if answer.is_good and entry not in found]
    assert lost == [], "lost"
    kept = [answer for entry, answer in writes.items() if not answer.is_good and entry in found]
    assert [answer for answer in kept if not is_unknown(answer)] == [], "kept, and the user was told that it failed"


def report(found: Outcome, fleet: Fleet) -> None:
    """Print what was found, for whoever watches the run or looks for why it failed."""
    failures = Counter((answer.kind, answer.status, answer.said) for answer in found.failed)
    print(  # noqa: T201
        f"\n{found.storm}, {found.way}: {len(found.answers)} requests, p50 {found.milliseconds(50):.0f} ms, "
        f"p99 {found.milliseconds(99):.0f} ms, at most {found.most} connections, outage {found.outage}, "
        f"recovery {found.recovery}"
    )
    for (kind, status, said), number in failures.most_common():
        print(f"  failed {number} x {kind}: {status} {said}")  # noqa: T201
    for message, number in Counter(fleet.errors()).most_common(10):
        print(f"  {number} x in the log: {message}")  # noqa: T201

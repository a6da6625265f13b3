"""An hour of one instance: what it was asked, what it held, and how docs/RELIABILITY.md shows it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import psutil

from tests import results
from tests.results import Plot, Result, Table
from tests.shared.db.watching import until
from tests.storms import record
from tests.storms.fleet import Member

RATE, SECONDS = 5, 3600  # requests a second, for an hour
ROUNDS = 36
MAIN = 1  # the thread that is left at rest
GROWTH = 3.0  # MB by which the median of the last third may be above that of the first


@dataclass(frozen=True)
class Sample:
    """What an instance holds at rest."""

    requests: int  # that it has answered
    megabytes: float  # resident
    threads: int
    descriptors: int  # beside its users' connections and those to the database
    connections: int  # to the server or the pooler
    users: int  # connections of users, all of whom have left


@dataclass
class Hour:
    """What one instance was asked, which answers were not as they should be, and what it held after each round."""

    member: Member
    way: str
    served: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def sample(self) -> None:
        """Look at the process."""
        instance = self.member.instance
        process = psutil.Process(instance.process.pid)
        with suppress(AssertionError):  # a thread that finds nothing to do ends after a moment
            until(lambda: process.num_threads() == MAIN)
        sockets = [each for each in process.net_connections("tcp") if each.raddr]
        connections = sum(each.laddr.port != instance.port for each in sockets)
        users = len(sockets) - connections
        descriptors = process.num_fds() - len(sockets)
        megabytes = process.memory_info().rss / 1e6
        threads = process.num_threads()
        self.samples.append(Sample(self.served.total(), megabytes, threads, descriptors, connections, users))

    def thirds(self, name: str) -> tuple[list[float], list[float]]:
        """Give the first and the last third of what was sampled under this name."""
        values = [float(getattr(sample, name)) for sample in self.samples]
        third = len(values) // 3
        return values[:third], values[-third:]

    @property
    def growth(self) -> float:
        """Give by how many MB the last third is above the first, in the median."""
        first, last = self.thirds("megabytes")
        return statistics.median(last) - statistics.median(first)

    def report(self) -> None:
        """Print what was found, for whoever watches the run or looks for why it failed."""
        print(f"\nsoak, {self.way}: {dict(self.served)}, memory grew by {self.growth:.2f} MB")  # noqa: T201
        for sample in self.samples[:: ROUNDS // 6]:
            print(f"  {sample}")  # noqa: T201
        for what, number in Counter(self.wrong).most_common(10):
            print(f"  wrong: {number} x {what}")  # noqa: T201


def keep(hours: Sequence[Hour], seconds: float) -> None:
    """Write the tables, the plot and the figures."""
    results.keep(
        Result(
            "soak",
            record.PAGE,
            record.COMMAND,
            tables=[_served(hours, seconds), _held(hours)],
            plots=[
                Plot(
                    "soak.svg",
                    "Resident memory of an instance over the requests it has answered",
                    "requests",
                    "MB",
                    {
                        hour.way: [(sample.requests, round(sample.megabytes, 2)) for sample in hour.samples]
                        for hour in hours
                    },
                )
            ],
            figures={hour.way: [asdict(sample) for sample in hour.samples] for hour in hours},
        )
    )


def _served(hours: Sequence[Hour], seconds: float) -> Table:
    kinds = list(hours[0].served)
    rows = [
        [hour.way, *(str(hour.served[kind]) for kind in kinds), str(hour.served.total()), str(len(hour.wrong))]
        for hour in hours
    ]
    columns = ["Way", *(kind.capitalize() for kind in kinds), "Requests", "Not as expected"]
    note = (
        f"At least {RATE} requests a second for an hour, {RATE * SECONDS} in all, answered in {seconds:.0f} s. After "
        f"each of {ROUNDS} rounds every connection of the database was ended on the server, every other time while the "
        "instance was frozen. *Expected* is the answer that a mistake, a timeout or a wrong password is to get."
    )
    return Table("Served", columns, rows, note)


def _held(hours: Sequence[Hour]) -> Table:
    rows = []
    for hour in hours:
        for name, word in (
            ("megabytes", "Memory, MB, median"),
            ("threads", "Threads, most"),
            ("descriptors", "Descriptors beside connections, most"),
            ("connections", "Connections to the database, most"),
            ("users", "Connections of users who have left, most"),
        ):
            thirds = hour.thirds(name)
            is_memory = name == "megabytes"
            first, last = (statistics.median(third) if is_memory else max(third) for third in thirds)
            goal = GROWTH if is_memory else 0
            rows.append(
                [
                    hour.way,
                    word,
                    *(f"{value:.1f}" if is_memory else f"{value:.0f}" for value in (first, last)),
                    f"at most {goal:g} more",
                    "yes" if last - first <= goal else "no",
                ]
            )
    return Table("Held at rest", ["Way", "What", "First third", "Last third", "Goal", "Met"], rows)

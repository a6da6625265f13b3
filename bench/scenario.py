"""What is simulated of a fleet, and what comes of it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pooling:
    """How an instance keeps connections; times in seconds.

    `server` is how much later than the instance the server closes an idle connection, None where it never does. With
    `timer` the instance closes idle ones by itself, unless it is frozen: a common pool. Ours has no timer.
    """

    maximum: int
    idle: float
    surplus: float
    server: float | None
    timer: bool = False


@dataclass(frozen=True)
class Freeze:
    """Somebody stops the first `instances` from `begin` to `end` (seconds); they are asked nothing meanwhile."""

    begin: float
    end: float
    instances: int


@dataclass(frozen=True)
class Scenario:
    """What is simulated; times in seconds.

    Requests come to each instance at random, `rate` a second, or from `users`, each of which waits for its answer and
    asks again `interval` after it had asked. `service` are weights and the time that a connection is held. An instance
    freezes `freeze_after` its last answer (None: never) and thaws with the next request. `pooler` is the number of its
    server connections; `slots` the server's. An instance works `handling` on each request, one after the other, before
    it asks for a connection.
    """

    instances: int
    seconds: float
    pooling: Pooling
    service: Sequence[tuple[float, float]]
    rate: float = 0.0
    users: int = 0
    interval: float = 1.0
    burst: bool = False
    concurrency: int = 10
    freeze_after: float | None = 0.1
    freezes: Sequence[Freeze] = ()
    slots: int = 97
    pooler: int | None = None
    connect: float = 0.01
    handling: float = 0.0


@dataclass
class Outcome:
    """What came of it: connections at the server over time, and how long requests waited for one."""

    held: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])
    waits: list[float] = field(default_factory=list)
    opened: int = 0
    refused: int = 0  # attempts that a full server refused

    def peak(self) -> int:
        """Give the most that there were at once."""
        return max(number for _, number in self.held)

    def at(self, moment: float) -> int:
        """Give how many there were at a moment."""
        return next((number for time, number in reversed(self.held) if time <= moment), 0)

    def mean(self, begin: float, end: float) -> float:
        """Give the average over a span of time."""
        points = [*((time, number) for time, number in self.held if time < end), (end, 0)]
        area = sum(
            number * (following - max(begin, time))
            for (time, number), (following, _) in itertools.pairwise(points)
            if following > begin
        )
        return area / (end - begin)

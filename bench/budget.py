"""How many connections to expect: a formula, for instances that are asked at random. docs/SCALING.md explains it."""

import math
from dataclasses import dataclass

from bench.scenario import Pooling, Scenario


@dataclass(frozen=True)
class Budget:
    """Connections of all instances: on average, what they seldom exceed, and what they can never exceed."""

    expected: float
    usual_peak: float
    worst: int


def budget(scenario: Scenario) -> Budget:
    """Work the formula out for a scenario with Poisson arrivals and no pooler."""
    parts = held(scenario)
    mean = sum(parts)
    # Of a number S: E[S^2] is the sum of (2k - 1) P(S >= k).
    variance = sum((2 * k - 1) * part for k, part in enumerate(parts, start=1)) - mean**2
    number = scenario.instances
    return Budget(
        expected=number * mean,
        usual_peak=number * mean + 3 * math.sqrt(number * variance),
        worst=number * len(parts),
    )


def held(scenario: Scenario) -> list[float]:
    """Give the share of time for which an instance holds at least 1, 2, ... connections."""
    pooling, rate = scenario.pooling, scenario.rate
    most = min(pooling.maximum, scenario.concurrency)
    weights = sum(weight for weight, _ in scenario.service)
    work = rate * sum(weight * seconds for weight, seconds in scenario.service) / weights
    # How often exactly k connections work: Erlang's loss formula.
    terms = [work**k / math.factorial(k) for k in range(most + 1)]
    works = [term / sum(terms) for term in terms]
    shares = []
    for k in range(1, most + 1):
        fewer = sum(works[:k])
        kept = _kept(pooling, rate, is_first=k == 1)
        shares.append(1 - fewer * math.exp(-kept * rate * works[k - 1] / fewer))
    return shares


def _kept(pooling: Pooling, rate: float, *, is_first: bool) -> float:
    """Give how long a connection stays when it is not needed."""
    if pooling.server is None:
        return math.inf
    if is_first:
        return pooling.idle + pooling.server
    # The instance closes it when it next gives one back, the server a little later.
    return pooling.surplus + (1 - math.exp(-pooling.server * rate)) / rate

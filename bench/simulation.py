"""How many connections a fleet holds: the formula, the simulation, and what the storms measured, side by side.

    python -m bench.simulation

The last step of `make bench`. Seconds; the same numbers each time, but for those of the storms, which are read as
`make soak` has left them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from bench.budget import budget
from bench.fleet_model import simulate
from bench.scenario import Freeze, Outcome, Pooling, Scenario
from shared.db.session import MARGIN
from shared.db.sizes import pool_size
from shared.settings import Settings
from tests import results
from tests.results import Plot, Result, Table

COMMAND = "python -m bench.simulation"
STORMS = "storms"  # the name under which make soak keeps what the storms measured
WARM = 30.0  # seconds that are simulated and not looked at: longer than any idle limit of ours
SERVICE = ((0.9, 0.01), (0.1, 0.1))  # nine requests of ten hold a connection for 10 ms, one for 100 ms
UNLIMITED = 10**6
GROWTH = (10, 25, 50, 75, 100, 150, 200)
PER_MINUTE = 1 / 60
POOLER = 20  # server connections

_SIZE = pool_size(Settings.read({"VERCEL": "1", "DATABASE_URL": "postgresql://u@db.example.com/x"}))
OURS = Pooling(_SIZE.max_size, _SIZE.idle_timeout, _SIZE.surplus_timeout, MARGIN)
COMMON = Pooling(10, 30.0, 30.0, None, timer=True)
_OURS_NAME = "direct, our limits"
_COMMON_NAME = f"direct, a common pool of {COMMON.maximum}, {COMMON.idle:g} s idle"
_POOLER_NAME = f"our limits, behind a pooler of {POOLER}"

# An instance of Vercel answers several requests at once, one of Lambda one.
CASES = (
    ("Lambda", 1, PER_MINUTE),
    ("Lambda", 1, 0.1),
    ("Lambda", 1, 5.0),
    ("Vercel", 10, PER_MINUTE),
    ("Vercel", 10, 0.1),
    ("Vercel", 10, 1.0),
    ("Vercel", 10, 5.0),
)


def main() -> None:
    """Simulate, compare, and keep it."""
    tables, plots = [formula_table()], [growth_plot(), burst_plot()]
    measured = storms()
    if measured:
        tables.append(against(measured))
        plots += [comparison_plot(storm) for storm in measured if storm["frozen"] and storm["way"] == "direct"]
    result = Result("simulation", "docs/SCALING.md", COMMAND, tables, plots)
    Console(soft_wrap=True).print(results.markdown(results.keep(result)), markup=False)


def formula_table(instances: int = 100) -> Table:
    """Compare the formula with the simulation."""
    rows = []
    for where, concurrency, rate in CASES:
        scenario = quiet(instances, rate, concurrency)
        outcome, formula = simulate(scenario), budget(scenario)
        mean = outcome.mean(WARM, scenario.seconds)
        rows.append(
            [
                f"{where}, {rate * 60:g} a minute",
                f"{formula.expected:.0f}",
                f"{mean:.0f}",
                f"{formula.expected / mean:.2f}",
                f"{formula.usual_peak:.0f}",
                f"{outcome.peak()}",
                f"{formula.worst}",
            ]
        )
    columns = ["Requests to each", "Expected", "Simulated", "Ratio", "Expected peak", "Simulated peak", "Worst case"]
    note = (
        f"Connections of {instances} instances, each frozen between requests. Nine of ten requests hold a connection "
        "for 10 ms, one for 100 ms."
    )
    return Table("The formula and the simulation", columns, rows, note)


def quiet(instances: int, rate: float, concurrency: int = 10, pooling: Pooling = OURS) -> Scenario:
    """Make a scenario of requests at random, long enough to see how it settles."""
    seconds = WARM + max(60.0, 20 / rate)
    return Scenario(instances, seconds, pooling, SERVICE, rate=rate, concurrency=concurrency, slots=UNLIMITED)


def growth_plot() -> Plot:
    """Show the connections of more and more instances, asked once a minute each."""
    series: dict[str, list[tuple[float | str, float]]] = {_COMMON_NAME: [], _OURS_NAME: [], "the formula": []}
    series[_POOLER_NAME] = []
    for instances in GROWTH:
        ours = quiet(instances, PER_MINUTE)
        ways = {_COMMON_NAME: replace(ours, pooling=COMMON), _OURS_NAME: ours}
        ways[_POOLER_NAME] = replace(ours, pooler=POOLER)
        for name, scenario in ways.items():
            mean = simulate(scenario).mean(scenario.seconds / 2, scenario.seconds)
            series[name].append((instances, round(mean, 1)))
        series["the formula"].append((instances, round(budget(ours).expected, 1)))
    of = "Connections at the server against the number of instances, each asked once a minute"
    return Plot("simulation-growth.svg", of, "instances", "connections held on average", series)


def burst_plot(instances: int = 100) -> Plot:
    """Show what is left of a burst of ten requests at once to each instance, then one a minute."""
    series = {}
    for name, pooling in ((_COMMON_NAME, COMMON), (_OURS_NAME, OURS)):
        scenario = Scenario(instances, 90, pooling, SERVICE, users=10, interval=600, burst=True, rate=PER_MINUTE)
        series[name] = thinned(simulate(replace(scenario, slots=UNLIMITED)), 90)
    of = f"Connections after ten requests at once to each of {instances} instances, which then get one a minute"
    return Plot("simulation-burst.svg", of, "seconds after the burst", "connections held", series, "steps")


def thinned(outcome: Outcome, seconds: float, step: float = 0.5) -> list[tuple[float | str, float]]:
    """Give what was held at every half second."""
    return [(n * step, float(outcome.at(n * step))) for n in range(int(seconds / step) + 1)]


# -- beside what was measured -----------------------------------------------------------------------

Storm = Mapping[str, Any]  # one of tests/storms, as make soak keeps it
_NEEDED = {"storm", "way", "instances", "users", "interval", "held", "outage", "frozen"}
# Of twenty requests of a storm two hold a connection for 100 ms on purpose (tests/storms/load.py).
QUICK = 0.002  # seconds for which the others do: half of what one takes in all, by its p50
HANDLING = 0.002  # seconds of an instance's own for each: the other half
STORMS_SERVICE = ((18, QUICK), (2, 0.1 + QUICK))


def storms() -> list[Storm]:
    """Read the storms that the model can tell: all instances there from the start, and the server never away."""
    if not (results.KEPT / f"{STORMS}.json").exists():
        return []
    kept = storms_in(results.load(STORMS).figures)
    return [storm for storm in kept if not storm["outage"] and "redeploy" not in storm["storm"]]


def storms_in(figures: Any) -> Iterator[Storm]:
    """Find the storms in what was kept, however it is arranged."""
    if isinstance(figures, Mapping) and figures.keys() >= _NEEDED:
        yield figures
    elif isinstance(figures, Mapping | list):
        for part in figures.values() if isinstance(figures, Mapping) else figures:
            yield from storms_in(part)


def scenario_of(storm: Storm) -> Scenario:
    """Make the scenario of a storm: its instances, users, pause and freeze."""
    frozen = storm["frozen"]
    return Scenario(
        storm["instances"],
        storm["held"][-1][0],
        OURS,
        STORMS_SERVICE,
        users=storm["users"],
        interval=storm["interval"],
        burst="burst" in storm["storm"],
        freeze_after=None,
        handling=HANDLING,
        freezes=[Freeze(frozen[0], frozen[1], storm["instances"] // 2)] if frozen else [],
        pooler=POOLER if storm["way"] == "pooler" else None,
    )


def against(measured: Sequence[Storm]) -> Table:
    """Compare the connections that the storms measured with those that are simulated for them."""
    rows = []
    for storm in measured:
        scenario = scenario_of(storm)
        outcome, seen = simulate(scenario), Outcome([(time, int(number)) for time, number in storm["held"]])
        end = scenario.seconds
        row = [f"{storm['storm']}, {storm['way']}", str(storm["instances"])]
        for of in (Outcome.peak, lambda one, end=end: one.mean(0, end), lambda one, end=end: one.at(end)):
            row += [f"{of(seen):.0f}", f"{of(outcome):.0f}"]
        rows.append(row)
    columns = ["Storm", "Instances", "Peak, measured", "simulated", "Mean, measured", "simulated", "End, measured"]
    note = (
        "The model has no processors: in a burst from zero the instances of one machine take turns to begin, and come "
        "to their connections later than simulated. It begins with no connection, a storm with those of the one before."
    )
    return Table("The storms and the simulation", [*columns, "simulated"], rows, note)


def comparison_plot(storm: Storm) -> Plot:
    """Show what was measured over time, and what is simulated."""
    scenario = scenario_of(storm)
    series = {
        "measured": [(time, number) for time, number in storm["held"]],
        "simulated": thinned(simulate(scenario), scenario.seconds),
    }
    of = f"Connections over time, measured and simulated: {storm['storm']}, {storm['instances']} instances"
    return Plot("simulation-storm.svg", of, "seconds", "connections held", series, "steps")


if __name__ == "__main__":
    main()

"""A deploy beside Alembic, drizzle-kit and node-pg-migrate: with nothing pending, and the first one.

    python -m bench.migrations

Whole processes, in turns, each tool over a folder of the same small revisions and a database of its own, on one
server. Writes the medians of their CPU and of the time on the clock, how this project's compare in each turn, and the
flights of each, which a proxy counts.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench.migration_tools import ALEMBIC, DEPLOY, Cost, Tool, make
from bench.peers import met, ratio
from bench.reads import server
from tests import results
from tests.servers.proxy import WireProxy

TURNS = 9
FIRST_TURNS = 5
NOTHING_PENDING = (10, 100, 1000)  # revisions
FIRST_RUN = (20, 100)
COUNTED = 20  # revisions of those whose flights are counted
GOAL = 0.5  # of Alembic's, with nothing pending

Costs = Mapping[str, list[Cost]]  # of each tool, its turns
Times = Callable[[list[Cost]], list[float]]  # one kind of their times


class Flights(NamedTuple):
    """The round trips of a tool."""

    first: int
    nothing: int


def main() -> None:
    """Measure, and keep the result."""
    costs = {}
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as url:
        folder = Path(name)
        for number in NOTHING_PENDING:
            costs[_nothing(number)] = measure(make(folder / f"nothing-{number}", number), url, TURNS, first=False)
        for number in FIRST_RUN:
            costs[f"first run of {number}"] = measure(make(folder / f"{number}", number), url, FIRST_TURNS, first=True)
        flights = {tool.name: count(tool, url) for tool in make(folder / "flights", COUNTED)}
    print(results.markdown(results.keep(report(costs, flights))))


def measure(tools: Sequence[Tool], url: str, turns: int, *, first: bool) -> Costs:
    """Give each its turn, so many times over after one to warm up; `first` on a new database each time."""
    costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
    for turn in range(turns + 1):
        for tool in tools:
            if first or turn == 0:
                _new_database(tool, url)
            cost = tool.run(_database(tool, url))
            if turn:  # the first one compiles, and where nothing is to be pending, applies
                costs[tool.name].append(cost)
    return costs


def count(tool: Tool, url: str) -> Flights:
    """Count the flights of the first run, and of one with nothing pending."""
    _new_database(tool, url)
    with WireProxy("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])) as proxy:
        way = f"{proxy.url(_database(tool, url))}?sslmode=disable"
        with proxy.count() as first:
            tool.run(way)
        with proxy.count() as nothing:
            tool.run(way)
    return Flights(first.flights, nothing.flights)


def report(costs: Mapping[str, Costs], flights: Mapping[str, Flights]) -> results.Result:
    """Compare medians, and each turn of the deploy with the peers' of the same turn."""
    tools = list(flights)
    goals = []
    for number in NOTHING_PENDING:
        of = costs[_nothing(number)]
        for times, label in ((_walls, "by the clock"), (_cpus, "CPU")):
            value = ratio(times(of[DEPLOY]), times(of[ALEMBIC]))
            goals.append((f"{_nothing(number)}, {label}", f"<= {GOAL:.2f}", f"{value:.2f}", met(value <= GOAL)))
    return results.Result(
        name="migrations",
        page="docs/PERFORMANCE.md",
        command="python -m bench.migrations",
        tables=[
            results.Table("By the clock, ms", ("", *tools), [_row(_walls, *item) for item in costs.items()]),
            results.Table(
                "CPU of the process, ms",
                ("", *tools),
                [_row(_cpus, *item) for item in costs.items()],
                "In brackets: the deploy, x this tool; the median of the ratios of all turns.",
            ),
            results.Table(
                f"Flights, {COUNTED} revisions, without TLS",
                ("", *tools),
                [
                    ("nothing pending", *(str(of.nothing) for of in flights.values())),
                    (f"first run of {COUNTED}", *(str(of.first) for of in flights.values())),
                ],
            ),
            results.Table(f"Goals: the deploy / {ALEMBIC}", ("", "Goal", "Measured", "Met"), goals),
        ],
        plots=[
            results.Plot(
                "migrations.svg",
                "Time that each tool needs with nothing pending, over the number of revisions",
                "revisions, all applied",
                "ms by the clock",
                {
                    tool: [
                        (number, round(statistics.median(_walls(costs[_nothing(number)][tool]))))
                        for number in NOTHING_PENDING
                    ]
                    for tool in tools
                },
            )
        ],
    )


def _row(times: Times, label: str, costs: Costs) -> tuple[str, ...]:
    cells = []
    for tool, turns in costs.items():
        compared = "" if tool == DEPLOY else f" ({ratio(times(costs[DEPLOY]), times(turns)):.2f})"
        cells.append(f"{statistics.median(times(turns)):.0f}{compared}")
    return (label, *cells)


def _nothing(number: int) -> str:
    return f"nothing pending, {number} revisions"


def _walls(turns: list[Cost]) -> list[float]:
    return [turn.wall for turn in turns]


def _cpus(turns: list[Cost]) -> list[float]:
    return [turn.cpu for turn in turns]


def _new_database(tool: Tool, url: str) -> None:
    name = _database(tool, url).rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")


def _database(tool: Tool, url: str) -> str:
    """Give the URL of a tool's database."""
    return f"{url.rpartition('/')[0]}/{tool.name.lower().replace('-', '_')}"


if __name__ == "__main__":
    main()

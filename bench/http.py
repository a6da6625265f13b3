"""A primary-key read over HTTP: this app beside FastAPI with SQLAlchemy, and Node with Drizzle.

    python -m bench.http

One process each, loaded by wrk with 8 connections, in turns, because the machine's speed drifts. Writes the requests
in a second, the server's CPU for each, how they compare, and whether the goals are met.
"""

import statistics
import sys
from collections.abc import Mapping
from typing import NamedTuple

from bench.peers import met, ratio
from bench.web_servers import ALONE, DRIZZLE, FASTAPI, OURS, STARLETTE, Server, running
from bench.wrk import CONNECTIONS, Wrk
from tests import results
from tests.deploy import tools

TURNS = 7
SECONDS = 2  # of each turn
GOALS = {DRIZZLE: 1.2, FASTAPI: 4.0}


class Cost(NamedTuple):
    """One turn: requests in a second, and microseconds of the server's CPU for each."""

    rate: float
    cpu: float


Costs = Mapping[str, list[Cost]]


def main() -> None:
    """Measure, and keep the result."""
    try:
        with running() as (wrk, servers):
            costs = measure(wrk, servers)
    except tools.Missing as missing:
        print(f"Without HTTP: {missing}", file=sys.stderr)
        return
    print(results.markdown(results.keep(report(costs))))


def measure(wrk: Wrk, servers: Mapping[str, Server]) -> Costs:
    """Give each its turn, TURNS times over after one to warm up."""
    costs: dict[str, list[Cost]] = {name: [] for name in servers}
    for turn in range(TURNS + 1):
        for name, each in servers.items():
            before = each.cpu()
            load = wrk.run(each.url, SECONDS)
            if load.failed or not load.requests:
                raise RuntimeError(f"{name} did not answer every request: {load}")
            cost = Cost(load.requests / load.seconds, (each.cpu() - before) / load.requests * 1e6)
            if turn:
                costs[name].append(cost)
    return costs


def report(costs: Costs) -> results.Result:
    """Compare medians, and each turn with Drizzle's of the same turn."""
    rate = {name: [cost.rate for cost in turns] for name, turns in costs.items()}
    cpu = {name: [cost.cpu for cost in turns] for name, turns in costs.items()}
    rows = [
        (
            name,
            f"{statistics.median(rate[name]):.0f}",
            f"{ratio(rate[name], rate[DRIZZLE]):.2f}",
            f"{statistics.median(cpu[name]):.0f}",
            f"{ratio(cpu[name], cpu[DRIZZLE]):.2f}",
        )
        for name in costs
    ]
    return results.Result(
        name="http",
        page="docs/PERFORMANCE.md",
        command="python -m bench.http",
        tables=[
            results.Table(
                f"A primary-key read over HTTP, {CONNECTIONS} connections, each server a process on one processor",
                ("", "requests/s", "x Drizzle", "CPU of the server, us a request", "x Drizzle"),
                rows,
            ),
            _goals(rate, cpu),
        ],
        plots=[
            results.Plot(
                "http-rate.svg",
                "Requests in a second, a bar for each server",
                "requests/s",
                "",
                {"requests": [(name, round(statistics.median(rates))) for name, rates in rate.items()]},
                "bars",
            ),
            results.Plot(
                "http-cpu.svg",
                "The server's CPU for a request, a bar for each server",
                "CPU of the server, us a request",
                "",
                {"CPU": [(name, round(statistics.median(costs), 1)) for name, costs in cpu.items()]},
                "bars",
            ),
        ],
    )


def _goals(rate: Mapping[str, list[float]], cpu: Mapping[str, list[float]]) -> results.Table:
    """Compare with the goals, and tell where this app's time goes."""
    rows = []
    for peer, least in GOALS.items():
        value = ratio(rate[OURS], rate[peer])
        rows.append((f"{OURS} / {peer}, requests/s", f">= {least:.1f}", f"{value:.2f}", met(value >= least)))
        by_cpu = ratio(cpu[peer], cpu[OURS])
        rows.append((f"{OURS} / {peer}, requests in a second of CPU", "", f"{by_cpu:.2f}", ""))
    bare, alone = ratio(cpu[STARLETTE], cpu[OURS]), ratio(cpu[ALONE], cpu[OURS])
    without = ratio(rate[ALONE], rate[DRIZZLE])
    return results.Table(
        "Goals",
        ("", "Goal", "Measured", "Met"),
        rows,
        f"Of the CPU of a request, {bare:.0%} is what the server takes for a like answer without a thread, a log and a "
        f"database, and {alone:.0%} what this app takes without a database, in a thread and with its line in the log. "
        "The rest is the read, for which a thread is put to sleep and woken, where Node takes what is there in one go. "
        f"Without a database this app would answer {without:.2f} times what Drizzle does with one.",
    )


if __name__ == "__main__":
    main()

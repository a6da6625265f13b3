"""What the storms found, as docs/RELIABILITY.md shows it and as the simulation is compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db.session import MARGIN
from shared.db.sizes import PoolSize
from tests import results
from tests.results import Plot, Result, Table
from tests.storms.fleet import LIMITS
from tests.storms.load import MIX, SLOW
from tests.storms.storm import Outcome, is_unknown
from tests.storms.watch import PERIOD, at

COMMAND = "make soak"
PAGE = "docs/RELIABILITY.md"


def keep(found: Sequence[Outcome], size: PoolSize) -> None:
    """Write the tables, a plot for each storm, and the figures."""
    results.keep(
        Result(
            "storms",
            PAGE,
            COMMAND,
            tables=[_storms(found), _failures(found), _frozen(found, size)],
            plots=[_plot(name, found) for name in dict.fromkeys(outcome.storm for outcome in found)],
            figures=_figures(found, size),
        )
    )


def _storms(found: Sequence[Outcome]) -> Table:
    rows = [
        [
            outcome.storm,
            outcome.way,
            str(outcome.instances),
            str(len(outcome.answers)),
            str(len(outcome.failed)),
            "0",
            "no" if outcome.failed else "yes",
            f"{outcome.milliseconds(50):.0f}",
            f"{outcome.milliseconds(99):.0f}",
            str(outcome.most),
            "" if outcome.outage is None else f"{outcome.outage[1] - outcome.outage[0]:.1f}",
            "" if outcome.recovery is None else f"{outcome.recovery:.1f}",
        ]
        for outcome in found
    ]
    heading = "Storm, Way, Instances, Requests, Failed, Goal, Met, p50 ms, p99 ms, Most held, Away s, Back after s"
    note = (
        f"p50 and p99 are of what was answered well, without the slow reads, which take {SLOW} ms on purpose. *Back "
        "after*: from when the server or the pooler listened again until every instance had answered well and nothing "
        "failed any more. Every failure was a `503` with `Retry-After`, or said that the outcome is unknown. No write "
        "was lost, and none doubled."
    )
    return Table("Storms", heading.split(", "), rows, note)


def _failures(found: Sequence[Outcome]) -> Table:
    rows = []
    for outcome in found:
        if not outcome.failed:
            continue
        unknown = [answer for answer in outcome.failed if is_unknown(answer)]
        kinds = [
            sum(answer.kind == kind and answer not in unknown for answer in outcome.failed)
            for kind in ("read", "slow", "write")
        ]
        rows.append([outcome.storm, outcome.way, *map(str, kinds), str(len(unknown))])
    heading = "Storm, Way, Single statements, Transactions that read, Transactions that write, Outcome unknown"
    note = (
        "A single statement (`db.fetch_one`) that was under way on the server is never sent twice. The transactions "
        "run again (`db.retry`); the outcome of one whose COMMIT was under way is unknown. "
        "Where there are more instances than slots, each that has a connection keeps it, and the others wait in vain: "
        "that is what a pooler is for."
    )
    return Table("What failed", heading.split(", "), rows, note)


def _frozen(found: Sequence[Outcome], size: PoolSize) -> Table:
    rows = []
    for outcome in found:
        if outcome.frozen is None or outcome.way != "direct":
            continue
        begun, ended = outcome.frozen
        moments = (begun, begun + size.surplus_timeout + MARGIN + 1, ended)
        held = [at(outcome.held_by_frozen, moment) for moment in moments]
        rows.append([str(outcome.instances // 2), f"{ended - begun:.0f}", *(f"{number:.0f}" for number in held)])
    heading = (
        f"Frozen instances, Seconds, Connections at first, A second after the surplus limit "
        f"({size.surplus_timeout:g} s + {MARGIN:g} s), At the end"
    )
    return Table(
        "What frozen instances hold, without a pooler",
        heading.split(", "),
        rows,
        f"The server closes them: those beyond the first of an instance after {size.surplus_timeout + MARGIN:g} s, the "
        f"first after {size.idle_timeout + MARGIN:g} s.",
    )


def _plot(name: str, found: Sequence[Outcome]) -> Plot:
    series: dict[str, Sequence[tuple[float | str, float]]] = {}
    for outcome in found:
        if outcome.storm == name:
            series[outcome.way] = list(outcome.held)
            if outcome.frozen is not None and outcome.way == "direct":
                series["direct, the frozen half"] = list(outcome.held_by_frozen)
    return Plot(
        f"storms-{name.replace(',', '').replace(' ', '-')}.svg",
        f"Connections held over time, {name}",
        "seconds",
        "connections to the server",
        series,
        kind="steps",
    )


def _figures(found: Sequence[Outcome], size: PoolSize) -> Mapping[str, Any]:
    return {
        "pool": {
            "max_size": size.max_size,
            "idle_timeout": size.idle_timeout,
            "surplus_timeout": size.surplus_timeout,
            "server_margin": MARGIN,
        },
        "limits": LIMITS,
        "slow_milliseconds": SLOW,
        "mix": MIX,
        "sampled_every": PERIOD,
        "storms": [
            {
                "storm": outcome.storm,
                "way": outcome.way,
                "instances": outcome.instances,
                "users": outcome.users,
                "interval": outcome.interval,
                "requests": len(outcome.answers),
                "failed": len(outcome.failed),
                "most": outcome.most,
                "outage": outcome.outage,
                "frozen": outcome.frozen,
                "held": outcome.held,
                "held_by_frozen": outcome.held_by_frozen,
            }
            for outcome in found
        ],
    }

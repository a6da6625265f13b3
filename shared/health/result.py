"""What a check is, what it finds, and how findings become a result that commands, endpoints and pages show.

A result never holds a host, a password or a literal of somebody's statement, so it may be shown to whoever may see the
report at all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from shared.health.server import Server

# unknown: the check could not be made. It says why, and does not make the whole any worse.
Verdict = Literal["ok", "warn", "fail", "unknown"]
_ORDER: tuple[Verdict, ...] = ("unknown", "ok", "warn", "fail")

# One line of a check's table. A key's ending tells its unit: _seconds, _bytes, _percent.
Row = Mapping[str, Any]


class Threshold(NamedTuple):
    """From which value on a check warns and fails, in the check's unit; None: never."""

    warn: float | None
    fail: float | None
    reason: str
    falling: bool = False  # less is worse

    def verdict(self, value: float | None) -> Verdict:
        """Judge a value; None is what could not be measured because there is nothing yet, and is ok."""
        if value is None:
            return "ok"
        for limit, verdict in ((self.fail, "fail"), (self.warn, "warn")):
            if limit is not None and (value <= limit if self.falling else value >= limit):
                return verdict  # type: ignore[return-value]  # mypy widens the literals of a tuple
        return "ok"


@dataclass(frozen=True)
class Finding:
    """What a check found: a sentence, a value in the check's unit, a table, and what to do.

    `advice` are sentences, `sql` statements to run, with the user's own names.
    """

    summary: str
    value: float | int | str | None = None
    verdict: Verdict = "ok"
    rows: tuple[Row, ...] = ()
    advice: tuple[str, ...] = ()
    sql: tuple[str, ...] = ()
    threshold: Threshold | None = None  # where the server's own settings make it


@dataclass(frozen=True)
class Check:
    """One thing to look at. `look` may raise any error of ours: the result is then unknown, with the reason."""

    name: str
    title: str
    meaning: str
    look: Callable[[Server], Finding]
    unit: str | None = None
    threshold: Threshold | None = None


@dataclass(frozen=True)
class Result:
    """A check's answer."""

    topic: str
    name: str
    title: str
    verdict: Verdict
    summary: str
    value: float | int | str | None = None
    unit: str | None = None
    threshold: Threshold | None = None
    rows: tuple[Row, ...] = ()
    advice: tuple[str, ...] = ()
    sql: tuple[str, ...] = field(default=())

    def as_object(self) -> dict[str, Any]:
        """Give it for JSON."""
        threshold = self.threshold
        return {
            "topic": self.topic,
            "name": self.name,
            "title": self.title,
            "verdict": self.verdict,
            "summary": self.summary,
            "value": self.value,
            "unit": self.unit,
            "threshold": {"warn": threshold.warn, "fail": threshold.fail} if threshold else None,
            "rows": [dict(row) for row in self.rows],
            "advice": list(self.advice),
            "sql": list(self.sql),
        }


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Give the worst of several; unknown where nothing is known."""
    return max(verdicts, key=_ORDER.index, default="unknown")

"""What the periodic check kept, as the page's plots need it: a few dozen points for a day and for a month."""

import threading
import time
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared import db, deadline
from shared.db.entry import is_over
from shared.db.pool import Pool
from shared.errors import Error
from shared.health.result import Verdict

MAX_AGE = 60.0  # seconds: a sample is a minute's
TIME_LIMIT = 3.0  # seconds, for both spans; the checks matter more

# A point is the worst of its time. Only numbers are taken as such: what a sample holds is no concern of the schema.
_POINTS = """
SELECT date_bin(make_interval(secs => %(step)s), taken_at, timestamptz '2000-01-01 00:00+00') AS begins_at,
    max(CASE status WHEN 'ok' THEN 1 WHEN 'warn' THEN 2 WHEN 'fail' THEN 3 END) AS status,
    max(CASE WHEN jsonb_typeof(numbers->'connections') = 'number' THEN (numbers->>'connections')::float8 END)
        AS connections,
    max(CASE WHEN jsonb_typeof(numbers->'pool') = 'number' THEN (numbers->>'pool')::float8 END) AS pool,
    max(CASE WHEN jsonb_typeof(numbers->'database_size') = 'number' THEN (numbers->>'database_size')::float8 END)
        AS database_size
FROM health_samples
WHERE taken_at >= %(begin)s AND taken_at < %(end)s AND status IS NOT NULL
GROUP BY 1 ORDER BY 1 LIMIT %(most)s
"""
_VERDICTS: tuple[Verdict, ...] = ("unknown", "ok", "warn", "fail")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Point(NamedTuple):
    """The worst of all samples in one step of time; None where none of them had it."""

    begins_at: datetime
    status: Verdict
    connections: float | None  # %
    pool: float | None  # %
    database_size: float | None  # bytes


@dataclass(frozen=True)
class Span:
    """A stretch of time in steps. Steps without a sample have no point."""

    name: str
    title: str
    begin: datetime
    end: datetime
    step: timedelta
    points: tuple[Point, ...]


@dataclass(frozen=True)
class History:
    """All spans, or why there are none: 42P01 (no such table), 42501 (may not be read), or another error's code."""

    spans: tuple[Span, ...] = ()
    trouble: str | None = None


_SPANS = (
    ("day", "24 hours", timedelta(hours=24), timedelta(minutes=20)),
    ("month", "30 days", timedelta(days=30), timedelta(hours=12)),
)

_lock = threading.Lock()
_latest: tuple[weakref.ref[Pool], float, History] | None = None


def latest_history(*, may_ask: bool = True) -> History:
    """Give the samples as they were MAX_AGE ago at most; while the database is down (`may_ask`), those last seen."""
    global _latest
    with _lock:
        known = _latest
    try:
        pool = db.get_pool()
        if known is not None and known[0]() is not pool:
            known = None
        if known is not None and not (may_ask and is_over(known[1], time.time(), MAX_AGE)):
            return known[2]
        if not may_ask:
            return History(trouble="database_unavailable")
        with deadline.within(TIME_LIMIT):
            history = History(tuple(_span(*span) for span in _SPANS))
    except Error as error:
        return known[2] if known is not None else History(trouble=error.sqlstate or error.code)
    with _lock:
        _latest = weakref.ref(pool), time.time(), history
    return history


def _span(name: str, title: str, length: timedelta, step: timedelta) -> Span:
    # Whole steps, so that a point stays where it is while time goes on.
    end = _EPOCH + ((datetime.now(UTC) - _EPOCH) // step + 1) * step
    begin = end - length
    rows = db.fetch_all(_POINTS, {"step": step.total_seconds(), "begin": begin, "end": end, "most": length // step})
    points = tuple(Point(**{**row, "status": _VERDICTS[row["status"] or 0]}) for row in rows)
    return Span(name, title, begin, end, step, points)

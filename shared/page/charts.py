"""Plots as inline SVG: as wide as there is room, without a style attribute, and each said in words as well.

The drawing is stretched, so it holds no text: numbers beside it are HTML, which keeps its size on a phone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from shared.health.result import Threshold, Verdict
from shared.health.units import bytes_text
from shared.page.history import Point, Span
from shared.page.words import number, percent_text, times
from shared.web.html import Markup, e, group

_WIDTH, _HEIGHT = 600, 120  # of the drawing, in its own units
_HEIGHTS: dict[Verdict, int] = {"ok": 8, "warn": 16, "fail": 24, "unknown": 2}
_STRIP = 24
_READING = e("span", class_="reading", aria_hidden="true")  # what the pointer is over


class Scale(NamedTuple):
    """What the plot's vertical axis shows, from its lowest value to its highest."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def y(self, value: float) -> float:
        """Give the height of a value in the drawing, counted from its top."""
        return round(_HEIGHT * (1 - (value - self.low) / (self.high - self.low)), 1)


def percent_scale(values: Sequence[float]) -> Scale:
    """Show 0 to 100 %, so that one sees how far the limit is; more only where there is more."""
    high = max(100.0, math.ceil(max(values, default=0) / 100) * 100)
    return Scale(0, high, (high, high / 2, 0))


def bytes_scale(values: Sequence[float]) -> Scale:
    """Show what the values span and a little around them: growth would not be seen above a long way from zero."""
    low, high = min(values, default=0), max(values, default=0)
    around = max((high - low) * 0.1, high * 0.01, 1024)
    low, high = max(0.0, low - around), high + around
    return Scale(low, high, (high, (low + high) / 2, low))


def line(
    span: Span,
    id: str,
    title: str,
    value_of: Callable[[Point], float | None],
    scale_of: Callable[[Sequence[float]], Scale],
    text: Callable[[float], str],
    threshold: Threshold | None = None,
) -> Markup:
    """Plot one number over a span, with the threshold's lines where they are in sight."""
    found = [(point, value) for point in span.points if (value := value_of(point)) is not None]
    if not found:
        return e("figure", e("figcaption", e("span", title, class_="name")), e("p", "No sample has it.", class_="none"))
    values = [value for _, value in found]
    scale = scale_of(values)
    words = f"Between {text(min(values))} and {text(max(values))}; {text(values[-1])} at last."
    limits = _limits(threshold, scale)
    strokes = [[(_x(span, point), scale.y(value)) for point, value in run] for run in _runs(span, found)]
    drawing = e(
        "svg",
        e("title", f"{title}, {span.title}", id=f"{id}-title"),
        e("desc", words, id=f"{id}-desc"),
        [e("line", x1=0, x2=_WIDTH, y1=scale.y(tick), y2=scale.y(tick), class_="grid") for tick in scale.ticks],
        [
            e("line", x1=0, x2=_WIDTH, y1=scale.y(value), y2=scale.y(value), class_=f"limit {name}")
            for name, value in limits
        ],
        [e("path", d=_area(stroke), class_="area") for stroke in strokes if len(stroke) > 1],
        [e("path", d=_path(stroke), class_="line") for stroke in strokes],
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{id}-title {id}-desc",
    )
    return e(
        "figure",
        e("figcaption", e("span", title, class_="name"), " ", e("span", text(values[-1]), class_="now"), _READING),
        e("div", [e("span", text(tick)) for tick in scale.ticks], class_="y", aria_hidden="true"),
        e("div", drawing, e("span", class_="at", aria_hidden="true"), class_="plot"),
        _times(span),
        e("p", group(*_limit_words(limits, text)), class_="limits") if limits else None,
        id=id,
    )


def strip(span: Span, id: str) -> Markup:
    """Show the verdict over a span: the higher the worse, as colour alone would not do."""
    bars = []
    for status, begin, end in _stretches(span):
        height = _HEIGHTS[status]
        x = _round(begin)
        bars.append(e("rect", x=x, width=_round(end - begin), y=_STRIP - height, height=height, class_=status))
    counts = [(status, sum(point.status == status for point in span.points)) for status in _HEIGHTS]
    said = [f"{number(count)} {status}" for status, count in counts if count]
    words = f"Of {len(span.points)} steps of {_length(span.step)}: {', '.join(said)}."
    drawing = e(
        "svg",
        e("title", f"Verdict, {span.title}", id=f"{id}-title"),
        e("desc", words, id=f"{id}-desc"),
        bars,
        viewBox=f"0 0 {_WIDTH} {_STRIP}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{id}-title {id}-desc",
        class_="strip",
    )
    return e(
        "figure",
        e(
            "figcaption",
            e("span", "Verdict", class_="name"),
            " ",
            e("span", "the higher, the worse", class_="hint"),
            _READING,
        ),
        e("div", drawing, e("span", class_="at", aria_hidden="true"), class_="plot"),
        _times(span),
        class_="wide",
        id=id,
    )


def table(span: Span) -> Markup:
    """Give the numbers of all plots of a span; the pointer over a plot reads them here, too."""
    rows = [
        e(
            "tr",
            e("th", times(point.begins_at, "moment"), scope="row"),
            e("td", point.status),
            e("td", _or_nothing(point.connections, percent_text)),
            e("td", _or_nothing(point.pool, percent_text)),
            e("td", _or_nothing(point.database_size, bytes_text)),
            data_x=round(_x(span, point) / _WIDTH, 4),
        )
        for point in span.points
    ]
    names = ("From", "Verdict", "Connections", "Pool", "Size")
    return e(
        "details",
        e("summary", "These numbers as a table"),
        e(
            "div",
            e(
                "table",
                e("caption", f"The worst of each {_length(span.step)}"),
                e("thead", e("tr", [e("th", name, scope="col") for name in names])),
                e("tbody", rows),
                id=f"numbers-{span.name}",
            ),
            class_="box",
            tabindex="0",
            role="region",
            aria_label=f"Numbers of the last {span.title}",
        ),
        id=f"table-{span.name}",
    )


def _x(span: Span, point: Point) -> float:
    """Give where a point is in the drawing: in the middle of its step."""
    return _round(_WIDTH * ((point.begins_at + span.step / 2 - span.begin) / (span.end - span.begin)))


def _runs(span: Span, found: list[tuple[Point, float]]) -> Iterator[list[tuple[Point, float]]]:
    """Split where samples are missing for longer than a step: a line there would be made up."""
    run: list[tuple[Point, float]] = []
    for point, value in found:
        if run and point.begins_at - run[-1][0].begins_at > 2 * span.step:
            yield run
            run = []
        run.append((point, value))
    yield run


def _stretches(span: Span) -> Iterator[tuple[Verdict, float, float]]:
    """Join steps that follow one another with the same verdict."""
    width = _WIDTH * (span.step / (span.end - span.begin))
    current: tuple[Verdict, float, float] | None = None
    for point in span.points:
        begin = _x(span, point) - width / 2
        if current is not None and current[0] == point.status and begin - current[2] < 0.2:
            current = current[0], current[1], begin + width
            continue
        if current is not None:
            yield current
        current = point.status, begin, begin + width
    if current is not None:
        yield current


def _path(stroke: list[tuple[float, float]]) -> str:
    # A lone point is a line without a length, which round ends make visible.
    points = stroke if len(stroke) > 1 else stroke * 2
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _area(stroke: list[tuple[float, float]]) -> str:
    return f"{_path(stroke)}L{stroke[-1][0]:g} {_HEIGHT}L{stroke[0][0]:g} {_HEIGHT}Z"


def _limits(threshold: Threshold | None, scale: Scale) -> list[tuple[str, float]]:
    if threshold is None:
        return []
    named = (("warn", threshold.warn), ("fail", threshold.fail))
    return [(name, value) for name, value in named if value is not None and scale.low <= value <= scale.high]


def _limit_words(limits: list[tuple[str, float]], text: Callable[[float], str]) -> Iterator[Markup]:
    for name, value in limits:
        yield e("span", f"{name}s from {text(value)}", class_=f"limit {name}")


def _times(span: Span) -> Markup:
    how = "clock" if span.end - span.begin <= timedelta(days=2) else "date"
    quarter = (span.end - span.begin) / 4
    marks = [times(span.begin + quarter * index, how) for index in range(4)]
    return e("div", marks, e("span", "now"), class_="x", aria_hidden="true")


def _length(step: timedelta) -> str:
    minutes = step // timedelta(minutes=1)
    return f"{minutes} minutes" if minutes < 60 else f"{minutes // 60} hours"


def _or_nothing(value: float | None, text: Callable[[float], str]) -> str:
    return "" if value is None else text(value)


def _round(value: float) -> float:
    return round(value, 1)

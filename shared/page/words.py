"""How the page writes numbers, times and verdicts."""

from datetime import UTC, datetime

from shared.health.result import Result, Threshold, Verdict
from shared.health.units import bytes_text, seconds_text
from shared.web.html import Markup, e

WORDS: dict[Verdict, str] = {"ok": "ok", "warn": "warning", "fail": "failing", "unknown": "unknown"}

# Each verdict has a shape of its own, so that colour is never the only sign: tick, triangle, cross, question mark.
_SHAPES: dict[Verdict, str] = {
    "ok": "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1ZM4.4 8.3l2.4 2.4 4.9-5",
    "warn": "M8 1.6 15.2 14.4H.8ZM8 6.2v4M8 12.2v.1",
    "fail": "M5 1h6l4 4v6l-4 4H5l-4-4V5ZM5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2",
    "unknown": "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1ZM6 6.1a2 2 0 1 1 2.9 1.8c-.6.3-.9.7-.9 1.4M8 11.9v.1",
}
_FORMATS = {"clock": "%H:%M", "date": "%b %d", "moment": "%b %d, %H:%M", "second": "%H:%M:%S", "day": "%Y-%m-%d %H:%M"}


def shape(verdict: Verdict) -> str:
    """Give the path of the verdict's shape in 16 by 16 units."""
    return _SHAPES[verdict]


def icon(verdict: Verdict) -> Markup:
    """Draw the verdict's shape; the word stands beside it."""
    return e("svg", e("path", d=shape(verdict)), viewBox="0 0 16 16", class_=f"icon {verdict}", aria_hidden="true")


def badge(verdict: Verdict) -> Markup:
    """Write the verdict as shape and word."""
    return e("span", icon(verdict), e("span", WORDS[verdict], class_="word"), class_=f"badge {verdict}")


def times(moment: datetime, how: str) -> Markup:
    """Write a time in UTC; the script writes it anew as the reader's clock has it."""
    utc = moment.astimezone(UTC)
    stamp = utc.isoformat(timespec="seconds").replace("+00:00", "Z")
    return e("time", utc.strftime(_FORMATS[how]), datetime=stamp, data_as=how)


def value_text(result: Result) -> str:
    """Write a result's value with its unit."""
    return "" if result.value is None else with_unit(result.value, result.unit)


def with_unit(value: float | int | str, unit: str | None) -> str:
    """Write a value in the unit of its check."""
    if isinstance(value, str):
        return value
    match unit:
        case "%":
            return percent_text(value)
        case "bytes":
            return bytes_text(value)
        case "s":
            return seconds_text(value)
    if unit is None:
        return number(value)
    if value == 1 and unit.endswith("s") and unit != "ms":  # what is counted is named in the plural
        unit = unit.removesuffix("es") if unit.endswith("xes") else unit.removesuffix("s")
    return f"{number(value)} {unit}"


def threshold_text(threshold: Threshold | None, unit: str | None) -> str:
    """Write from which value on a check warns and fails."""
    if threshold is None:
        return ""
    way = "or less" if threshold.falling else "or more"
    named = (("warns", threshold.warn), ("fails", threshold.fail))
    said = [f"{name} at {with_unit(value, unit)} {way}" for name, value in named if value is not None]
    return ", ".join(said)


def percent_text(value: float) -> str:
    """Write a part of a hundred: 3.1 %, 100 %."""
    return f"{value:.3g} %" if value < 100 else f"{value:.0f} %"


def prose(text: str) -> list[Markup | str]:
    """Write what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them is no quotation mark
        return [text]
    return [e("code", part) if index % 2 else part for index, part in enumerate(parts)]


def number(value: float) -> str:
    """Write a number with thousands set apart."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"

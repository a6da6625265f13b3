"""Numbers of a report as people read them. The ending of a row's key tells the unit: _seconds, _bytes, _percent."""

from typing import Any

_BYTES = ("bytes", "kB", "MB", "GB", "TB")  # PostgreSQL's names: steps of 1024
_SECONDS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def bytes_text(count: float) -> str:
    """Write a size: 512 bytes, 1.5 MB."""
    if count == 1:
        return "1 byte"
    unit = 0
    while abs(count) >= 1024 and unit < len(_BYTES) - 1:
        count /= 1024
        unit += 1
    return f"{count:,.0f} {_BYTES[unit]}" if unit == 0 else f"{count:,.1f} {_BYTES[unit]}"


def seconds_text(seconds: float) -> str:
    """Write a duration in its largest unit: 0.25 s, 3.5 min, 12 d."""
    for length, unit in _SECONDS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"


def counted(count: int, noun: str) -> str:
    """Write a number of things: 1 slot, 2 slots, 3 indexes."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith(('x', 's')) else 's'}"


def heading(key: str) -> str:
    """Write a row's key as the heading of a column, without its unit."""
    for ending in ("_seconds", "_bytes", "_percent"):
        key = key.removesuffix(ending)
    return key.replace("_", " ")


def cell(key: str, value: Any) -> str:
    """Write a row's value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int | float):
        if key.endswith("_seconds"):
            return seconds_text(value)
        if key.endswith("_bytes"):
            return bytes_text(value)
        if key.endswith("_percent"):
            return f"{value:g} %"
    return str(value)

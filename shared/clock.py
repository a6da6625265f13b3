"""What time it is, as the guides write it."""

import time

_second = (0, "")  # the last one that was written, since most lines of a log share theirs with the line before


def timestamp() -> str:
    """Give the time in UTC with milliseconds: 2025-12-19T10:30:00.000Z (RFC 3339)."""
    global _second
    second, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    known, text = _second
    if known != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _second = second, text
    return f"{text}.{milliseconds:03d}Z"

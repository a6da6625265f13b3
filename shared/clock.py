"""What time it is, as the guides write it."""

import datetime


def timestamp() -> str:
    """Give the time in UTC with milliseconds: 2025-12-19T10:30:00.000Z (RFC 3339)."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""What Vercel's runtime knows of the request under way."""

import sys
from datetime import UTC, datetime

_MARGIN = 0.5  # seconds of Vercel's time kept for the answer itself


def remaining() -> float | None:
    """Give the seconds until Vercel ends the request, less what the answer needs; None where that is not known."""
    runtime = sys.modules.get("vercel_runtime")  # who runs us is loaded, and nobody else installs it
    end: datetime | None = None if runtime is None else runtime.get_deadline()
    return None if end is None else max(0.0, (end - datetime.now(UTC)).total_seconds() - _MARGIN)

"""The periodic check in a long-lived server: a thread that looks every so often, as the guide promises."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import ConfigurationError
from shared.settings import get_settings

log = logging.getLogger(__name__)


@contextmanager
def looking_now_and_then() -> Iterator[None]:
    """Look every WATCH_INTERVAL seconds for the length of the block.

    Only in production, and only where a process lives long: a frozen instance runs no timer, so Vercel and Lambda call
    /api/watch instead.
    """
    interval = _interval()
    if interval == 0:
        yield
        return
    stop = threading.Event()
    # A daemon that nobody waits for: a look under way must not delay the end of the process.
    threading.Thread(target=_look, args=(interval, stop), name="watch", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _interval() -> float:
    try:
        settings = get_settings()
    except ConfigurationError:
        return 0  # the endpoints say what is wrong
    return settings.watch_interval if settings.is_production_like and not settings.is_serverless else 0


def _look(interval: float, stop: threading.Event) -> None:
    from shared.health.watch import watch

    while not stop.wait(interval):
        try:
            watch()
        except Exception:  # the next look is worth more than the reason for this one's end
            log.exception("watch: a look ended with an error")

"""The report for many who ask at once: one of them makes it, and the others get the same."""

import logging
import threading
import time
import weakref

from shared import db, deadline
from shared.db.entry import is_over
from shared.db.pool import Pool
from shared.errors import ConfigurationError, DeadlineExceeded
from shared.health.report import Report, make_report

log = logging.getLogger(__name__)

MAX_AGE = 5.0  # seconds by the wall clock: pages that refresh themselves cost one report in that time

_lock = threading.Lock()
_latest: tuple[weakref.ref[Pool], float, Report] | None = None  # of which pool, made when


def latest_report() -> Report:
    """Give a report that is at most MAX_AGE old; who asks while one is made waits for it. Raises DeadlineExceeded."""
    global _latest
    try:
        pool = db.get_pool()
    except ConfigurationError:
        return _made()  # which says so, and asks no server
    left = deadline.remaining()
    if not _lock.acquire(timeout=-1 if left is None else left):
        raise DeadlineExceeded("The report that somebody else asked for was not made in time.")
    try:
        if _latest is not None and _latest[0]() is pool and not is_over(_latest[1], time.time(), MAX_AGE):
            return _latest[2]
        report = _made()
        _latest = weakref.ref(pool), time.time(), report
        return report
    finally:
        _lock.release()


def _made() -> Report:
    """Make a report; why there is no connection is for the log, with the host's name."""
    report = make_report()
    if report.error is not None:
        from shared.db.diagnosis import for_log

        log.warning("health: %s: %s", report.error.code, report.error.message, extra=for_log(report.error))
    return report

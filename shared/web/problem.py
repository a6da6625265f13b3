"""Errors as `application/problem+json` (RFC 9457): enough for a client to act on, nothing about the inside.

Host, user, SQL and traceback go to the log only.
"""

import http
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from shared import errors
from shared.db.failures import error_from, first_line

log = logging.getLogger(__name__)


class Problem(Exception):
    """Raise in an endpoint to answer with an error: `raise Problem(404, "No such note.")`.

    `detail` is for the client to read; `extra` adds members to the document, `headers` to the response.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.title = http.HTTPStatus(status).phrase  # raises ValueError here, where the endpoint's author sees it
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self) -> dict[str, Any]:
        """Give the problem document; without a type of its own it is `about:blank` and titled by its status."""
        return {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail, **self.extra}


def problem_from(error: BaseException) -> Problem:
    """Turn any exception of an endpoint into what the client may know of it, and log the rest."""
    if isinstance(error, Problem):
        return error
    known = _known(error)
    if known is None:
        log.error("an endpoint failed", exc_info=error)
        return Problem(500, "The request could not be completed.")
    error = known
    _, status, retry_after, detail = next(answer for answer in _ANSWERS if isinstance(error, answer[0]))
    _log(error, logging.ERROR if status >= 500 else logging.INFO)
    return Problem(status, detail, headers={"Retry-After": retry_after} if retry_after else None)


def _known(error: BaseException) -> errors.Error | None:
    """Find our error, or a driver's with a SQLSTATE, in what SQLAlchemy or an endpoint wrapped it in."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, errors.Error):
            return link
        sqlstate = getattr(link, "sqlstate", None)
        if isinstance(sqlstate, str):
            return error_from(sqlstate, first_line(link))
        link = getattr(link, "orig", None) or link.__cause__
    return None


def _log(error: errors.Error, level: int) -> None:
    from shared.db.diagnosis import for_log  # only once something has failed

    # Without what caused it: the driver's text quotes rows in its DETAIL.
    where = "".join(traceback.format_exception(error, chain=False))
    log.log(level, "%s: %s", error.code, error.message, extra={**for_log(error), "traceback": where})


_BUSY = "The service is busy. Try again shortly."
_REFUSED = "A value was given that cannot be stored."
# The first row that fits; Retry-After in seconds.
_ANSWERS: tuple[tuple[type[errors.Error], int, str | None, str], ...] = (
    (errors.Overloaded, 503, "1", _BUSY),
    (errors.PoolTimeout, 503, "1", _BUSY),
    (errors.SerializationFailure, 503, "1", _BUSY),
    (errors.DeadlockDetected, 503, "1", _BUSY),
    (errors.LockNotAvailable, 503, "1", _BUSY),
    (errors.DatabaseUnavailable, 503, "5", "The database cannot be reached at the moment."),
    (errors.UniqueViolation, 409, None, "Something with that key exists already."),
    (errors.ForeignKeyViolation, 409, None, "It refers to something that is not there, or is still referred to."),
    (errors.IntegrityError, 422, None, _REFUSED),
    (errors.DataException, 422, None, _REFUSED),
    (errors.TransactionResolutionUnknown, 500, None, "It is not known whether the change was saved. Look first."),
    (errors.DeadlineExceeded, 504, None, "The request took longer than it may."),
    (errors.QueryCanceled, 504, None, "The request took longer than it may."),
    (errors.ConfigurationError, 500, None, "The service is not configured correctly."),
    (errors.Error, 500, None, "The request could not be completed."),
)

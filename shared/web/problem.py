"""Errors as `application/problem+json` (RFC 9457): enough for a client to act on, nothing about the inside.

Host, user, SQL and traceback go to the log only.
"""

import http
import logging
from collections.abc import Mapping
from typing import Any

from shared import errors

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


def problem_from(error: Exception) -> Problem:
    """Turn any exception of an endpoint into what the client may know of it, and log the rest."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, errors.UniqueViolation):
        return Problem(409, "Something with that key exists already.")
    for kind, status, retry_after, detail in _ANSWERS:
        if isinstance(error, kind):
            log.error("%s: %s", error.code, error.message, extra={"sqlstate": error.sqlstate})
            return Problem(status, detail, headers={"Retry-After": retry_after} if retry_after else None)
    log.error("an endpoint failed", exc_info=error)
    return Problem(500, "The request could not be completed.")


_BUSY = "The service is busy. Try again shortly."
# The first row that fits; Retry-After in seconds.
_ANSWERS: tuple[tuple[type[errors.Error], int, str | None, str], ...] = (
    (errors.PoolTimeout, 503, "1", _BUSY),
    (errors.SerializationFailure, 503, "1", _BUSY),
    (errors.DeadlockDetected, 503, "1", _BUSY),
    (errors.LockNotAvailable, 503, "1", _BUSY),
    (errors.DatabaseUnavailable, 503, "5", "The database cannot be reached at the moment."),
    (errors.DeadlineExceeded, 504, None, "The request took longer than it may."),
    (errors.QueryCanceled, 504, None, "The request took longer than it may."),
    (errors.ConfigurationError, 500, None, "The service is not configured correctly."),
)

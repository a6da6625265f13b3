"""Say whether the database answers."""

from typing import Any

from shared import __version__
from shared.clock import timestamp
from shared.errors import ConfigurationError
from shared.health.connectivity import database_state
from shared.settings import get_settings
from shared.web import Endpoint, Reply, Request, lambda_handler

endpoint = Endpoint("/api/health", probe=True)

_WAKES_IN = "5"  # seconds, as a database at rest does


@endpoint.get
def health(request: Request) -> Reply:
    """Answer 200 `ok`, or 503 `degraded` where the database does not answer; in 2 s at most.

    With ?live=1 it asks nobody, and says only that this process answers.
    """
    if request.query_params.get("live") == "1":
        return Reply(_body("ok"))
    state = database_state(max_age=_max_age())
    if state == "connected":
        return Reply(_body("ok", "connected"))
    headers = {"Retry-After": _WAKES_IN} if state == "waking" else {}
    return Reply(_body("degraded", "disconnected"), status=503, headers=headers)


def _body(status: str, database: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"status": status, "timestamp": timestamp(), "version": __version__}
    return body if database is None else body | {"services": {"database": database}}


def _max_age() -> float:
    try:
        return get_settings().health_cache
    except ConfigurationError:
        return 0.0  # the check itself says what is wrong


handler = lambda_handler(endpoint)

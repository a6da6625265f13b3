"""Say whether the database answers."""

from shared import __version__
from shared.clock import timestamp
from shared.health.connectivity import is_connected
from shared.web import Endpoint, Reply, lambda_handler

endpoint = Endpoint("/api/health", probe=True)


@endpoint.get
def health() -> Reply:
    """Answer 200 `ok`, or 503 `degraded` where the database does not answer; in 2 s at most."""
    connected = is_connected()
    body = {
        "status": "ok" if connected else "degraded",
        "timestamp": timestamp(),
        "version": __version__,
        "services": {"database": "connected" if connected else "disconnected"},
    }
    return Reply(body, status=200 if connected else 503)


handler = lambda_handler(endpoint)

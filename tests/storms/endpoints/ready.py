"""Load what a first connection loads, and connect to nothing."""

from shared.db import psycopg_driver
from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/ready")


@endpoint.get
def ready() -> dict[str, str]:
    """Say which driver is loaded."""
    return {"driver": psycopg_driver.__name__}


handler = lambda_handler(endpoint)

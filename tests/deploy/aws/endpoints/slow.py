"""Take longer than there is time."""

import time

from shared import db
from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/slow/{what}")


@endpoint.get
def slow(what: str) -> dict[str, str]:
    """Wait for the database, for a lock in it, or for nothing at all."""
    if what == "query":
        db.execute("SELECT pg_sleep(600)")
    elif what == "lock":
        db.execute("SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)")
    elif what == "code":
        time.sleep(600)
    return {"what": what}


handler = lambda_handler(endpoint)

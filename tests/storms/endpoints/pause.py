"""Hold a connection for a while, as a slow query does."""

from shared import db
from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/pause/{milliseconds}")


@endpoint.get
def pause(milliseconds: int) -> dict[str, int]:
    """Wait in the database, in a transaction that only reads, and so may run again whatever becomes of it."""

    @db.retry(read_only=True)
    def unit(tx: db.Transaction) -> None:
        tx.execute("SELECT pg_sleep(%(seconds)s)", {"seconds": milliseconds / 1000})

    unit()
    return {"milliseconds": milliseconds}


handler = lambda_handler(endpoint)

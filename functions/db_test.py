"""Say which expected tables are there.

For checking a deployment. It is public, so it tells no more than that.
"""

import logging

from shared import db, deadline
from shared.clock import timestamp
from shared.db.schema_head import TABLES
from shared.errors import ConfigurationError, DatabaseUnavailable, DeadlineExceeded, PoolTimeout
from shared.web import Endpoint, Reply, lambda_handler

log = logging.getLogger(__name__)

endpoint = Endpoint("/api/db/test")


@endpoint.get
def db_test() -> Reply:
    """Answer 200 `connected` where every table is there; 503 `tables_missing`, or `disconnected` without tables."""
    try:
        with deadline.within(5):
            rows = db.fetch_all(
                "SELECT name, to_regclass(name) IS NOT NULL AS present FROM unnest(%(names)s::text[]) AS name",
                {"names": list(TABLES)},
            )
    except PoolTimeout:
        raise  # busy, not disconnected: 503 and Retry-After
    except (DatabaseUnavailable, DeadlineExceeded, ConfigurationError) as error:
        log.error("%s: %s", error.code, error.message)
        return _reply("disconnected", {})
    tables = {row["name"]: row["present"] for row in rows}
    return _reply("connected" if all(tables.values()) else "tables_missing", tables)


def _reply(status: str, tables: dict[str, bool]) -> Reply:
    body = {"status": status, "timestamp": timestamp(), "tables": tables}
    return Reply(body, status=200 if status == "connected" else 503)


handler = lambda_handler(endpoint)

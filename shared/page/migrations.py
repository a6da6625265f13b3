"""Which migrations were applied last, when and by whom, from the ledger that the runner keeps."""

from shared import db, deadline
from shared.db.drivers import Row
from shared.errors import Error

_LAST = """
SELECT revision, name, applied_at, applied_by, applied_from FROM migration_ledger
WHERE applied_at IS NOT NULL ORDER BY revision DESC LIMIT 5
"""
_TIME_LIMIT = 2.0  # seconds


def last_migrations() -> list[Row] | None:
    """Give the last five, the newest first; None where the ledger is not there or may not be read."""
    try:
        with deadline.within(_TIME_LIMIT):
            return db.fetch_all(_LAST)
    except Error:
        return None

"""What Alembic's comparison of database and metadata leaves out: what is no part of the schema."""

from migrations.ledger import TABLES
from shared.db.performance_indexes import NAMES


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Tell Alembic whether to look at something that it found in the database (its `include_name`)."""
    return not ((kind == "table" and name in TABLES) or (kind == "index" and name in NAMES))

"""Whether there is nothing to do at all, told by one query: without the lock, without Alembic or SQLAlchemy.

The head alone would not tell: an older file may have been merged late, and a deploy killed before its seed or its
indexes. So the ledger's digest counts too, and a fingerprint that a deploy writes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import psycopg

from migrations import ledger, seed
from migrations.connection import Connection
from migrations.files import File
from migrations.guards import COLUMNS, Facts
from shared.db.performance_indexes import INDEXES
from shared.settings import Environment, Settings

_QUERY = f"""
SELECT {COLUMNS},
    ARRAY(SELECT version_num::text FROM alembic_version),
    (SELECT {ledger.DIGEST} FROM migration_ledger WHERE applied_at IS NOT NULL),
    environment,
    fingerprint,
    {" AND ".join(["true", *seed.CONDITIONS.values()])},
    EXISTS (
        SELECT FROM pg_index JOIN pg_class ON oid = indexrelid
        WHERE NOT indisvalid AND relkind = 'i' AND relnamespace = quote_ident(current_schema())::regnamespace
    ),
    EXISTS (
        SELECT FROM unnest(%(indexes)s::text[], %(tables)s::text[]) AS wanted (name, on_table)
        WHERE to_regclass(quote_ident(on_table)) IS NOT NULL AND to_regclass(quote_ident(name)) IS NULL
    )
FROM (SELECT) AS one_row LEFT JOIN migration_state ON true
"""  # noqa: S608 - constants

_WRITE = """
INSERT INTO migration_state (fingerprint) VALUES (%s)
ON CONFLICT (only_row) DO UPDATE SET fingerprint = excluded.fingerprint, changed_at = now()
"""


@dataclass(frozen=True)
class State:
    """What the query found."""

    facts: Facts
    versions: tuple[str, ...]
    digest: str
    environment: Environment | None
    fingerprint: str | None
    is_seeded: bool
    has_invalid_index: bool
    lacks_performance_index: bool

    def is_finished(self, files: Sequence[File], settings: Settings) -> bool:
        """Tell whether a deploy of these files, in the environment of these settings, would change nothing."""
        return (
            self.versions == tuple(file.revision for file in files[-1:])
            and self.digest == ledger.digest(files)
            and self.environment is not None
            and self.fingerprint == fingerprint(files, settings)
            and self.is_seeded
            and not self.has_invalid_index
            and not (self.lacks_performance_index and settings.is_production_like)
        )


def look(connection: Connection) -> State | None:
    """Ask the server all at once; None where a table is not there yet, as before the first deploy."""
    parameters = {"indexes": [index.name for index in INDEXES], "tables": [index.table for index in INDEXES]}
    try:
        row: Any = connection.execute(_QUERY.encode(), parameters).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    facts, (versions, *rest) = row[: len(Facts._fields)], row[len(Facts._fields) :]
    return State(Facts(*facts), tuple(versions), *rest)


def fingerprint(files: Sequence[File], settings: Settings) -> str:
    """Sum up what a finished deploy leaves: the files, the essential data, the indexes, and for which environment."""
    indexes = INDEXES if settings.is_production_like else ()
    built = [(index.name, index.statement) for index in indexes]
    parts = (ledger.digest(files), settings.environment, tuple(seed.CONDITIONS), built)
    return sha256(repr(parts).encode()).hexdigest()


def finish(connection: Connection, files: Sequence[File], settings: Settings) -> None:
    """Note that a deploy of these files is finished; the last thing that it does."""
    connection.execute(_WRITE, [fingerprint(files, settings)])

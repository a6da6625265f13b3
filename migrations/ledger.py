"""The ledger: what was applied, when, by whom and from which text, in a table of our own beside `alembic_version`.

A revision's row commits with the revision (env.py), so that stock Alembic keeps the ledger too. The row of a file
outside a transaction exists before it is applied, without `applied_at`: it remembers how many statements took effect,
so that the next run goes on behind them.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import psycopg

from migrations.connection import Connection
from migrations.files import File, Migration
from shared.errors import HistoryMismatch

# Of ours, in the current schema. No migration makes them, and Alembic's comparison leaves them out.
TABLES = ("migration_ledger", "migration_state")

_CREATE = (
    """
CREATE TABLE migration_ledger (
    revision text PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz,
    applied_by text NOT NULL,
    applied_from text NOT NULL,
    duration_ms integer,
    statements_done integer,
    statements_checksum text
)
""",
    "COMMENT ON TABLE migration_ledger IS 'Migrations that were applied, and from which text; kept by `db migrate`'",
    """
CREATE TABLE migration_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    environment text,
    fingerprint text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    backed_up_at timestamptz
)
""",
    "COMMENT ON TABLE migration_state IS 'Whose database this is, and what the last deploy left; kept by `db migrate`'",
    "INSERT INTO migration_state DEFAULT VALUES",
)

# What `digest` gives for the same rows.
DIGEST = """encode(sha256(convert_to(coalesce(string_agg(
    revision || ' ' || checksum, E'\\n' ORDER BY revision COLLATE "C"), ''), 'UTF8')), 'hex')"""

_RECORD = """
INSERT INTO migration_ledger AS old
    (revision, name, checksum, applied_at, applied_by, applied_from, duration_ms, statements_done, statements_checksum)
VALUES (%(revision)s, %(name)s, %(checksum)s, CASE WHEN %(done)s::int IS NULL THEN clock_timestamp() END, session_user,
        current_setting('application_name'), %(duration)s, %(done)s, %(prefix)s)
ON CONFLICT (revision) DO UPDATE SET (name, checksum, applied_at, applied_by, applied_from, duration_ms,
                                      statements_done, statements_checksum)
    = (excluded.name, excluded.checksum, excluded.applied_at, excluded.applied_by, excluded.applied_from,
       excluded.duration_ms, excluded.statements_done, excluded.statements_checksum)
"""


class Entry(NamedTuple):
    """One row; `applied_at` is None, and `statements_done` set, while a file outside a transaction is under way."""

    revision: str
    name: str
    checksum: str
    applied_at: datetime | None
    applied_by: str
    applied_from: str  # the session's application_name: host and deployment
    duration_ms: int | None
    statements_done: int | None


def prepare(connection: Connection) -> None:
    """Make the tables where they are not; to be called under the migration lock."""
    row = connection.execute("SELECT to_regclass('migration_state') IS NULL").fetchone()
    if row == (True,):
        with connection.transaction():
            for statement in _CREATE:
                connection.execute(statement)


def read(connection: Connection) -> dict[str, Entry]:
    """Give every row by its revision, oldest first."""
    query = f"SELECT {', '.join(Entry._fields)} FROM migration_ledger ORDER BY revision"  # noqa: S608 - our own names
    try:
        rows: list[Any] = connection.execute(query.encode()).fetchall()
    except psycopg.errors.UndefinedTable:
        return {}
    return {row[0]: Entry(*row) for row in rows}


def digest(files: Sequence[File]) -> str:
    """Sum up revisions and checksums, as `DIGEST` does for rows."""
    return sha256("\n".join(f"{file.revision} {file.checksum}" for file in files).encode()).hexdigest()


def record(connection: Connection, file: File, *, duration_ms: int | None = None) -> None:
    """Note that a file is applied, in the transaction that applies it."""
    _record(connection, file, duration_ms=duration_ms)


def forget(connection: Connection, revision: str) -> None:
    """Remove a revision that was taken back, in the transaction that does so."""
    connection.execute("DELETE FROM migration_ledger WHERE revision = %s", [revision])


def replace(connection: Connection, files: Sequence[File]) -> None:
    """Have these files be what is applied, whoever applied them; what is recorded of one of them stays."""
    connection.execute("DELETE FROM migration_ledger WHERE revision <> ALL (%s)", [[file.revision for file in files]])
    known = read(connection)
    for file in files:
        if file.revision not in known or known[file.revision].applied_at is None:
            record(connection, file)


def statements_done(connection: Connection, migration: Migration) -> int:
    """Tell how many statements of a file outside a transaction an interrupted run has left in effect.

    Raises HistoryMismatch where one of those was changed since. The connection is in autocommit mode.
    """
    row = connection.execute(
        "SELECT statements_done, statements_checksum FROM migration_ledger WHERE revision = %s AND applied_at IS NULL",
        [migration.revision],
    ).fetchone()
    if row is None:
        return 0
    done = int(str(row[0]))
    if row[1] != _prefix(migration, done):
        raise HistoryMismatch(
            f"{migration.name}: what took effect of it in a run that was interrupted ({done} of its statements) was "
            "changed since.",
            solutions=[
                "Restore those statements: the next run goes on behind them.",
                "Or have the file begin anew: db migrate repair",
            ],
        )
    return done


def record_statement(connection: Connection, migration: Migration, done: int) -> None:
    """Note that the first `done` statements of a file outside a transaction took effect."""
    _record(connection, migration, done=done, prefix=_prefix(migration, done))


def _record(
    connection: Connection,
    file: File,
    *,
    duration_ms: int | None = None,
    done: int | None = None,
    prefix: str | None = None,
) -> None:
    connection.execute(
        _RECORD,
        {
            "revision": file.revision,
            "name": file.name,
            "checksum": file.checksum,
            "duration": duration_ms,
            "done": done,
            "prefix": prefix,
        },
    )


def _prefix(migration: Migration, done: int) -> str:
    texts = [statement.text for statement in migration.up.statements[:done]]
    # A file that runs in a transaction now would run them again.
    return sha256("\0".join([str(migration.transactional), *texts]).encode()).hexdigest()

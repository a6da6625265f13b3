"""CREATE INDEX CONCURRENTLY that can be repeated: an interrupted one leaves its index behind, INVALID.

IF NOT EXISTS would take that for the index (manual, CREATE INDEX, Building Indexes Concurrently).
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg

from migrations.connection import Connection
from migrations.contention import Contention, patience
from migrations.kinds import ConcurrentIndex
from migrations.progress import Report
from shared.errors import MigrationError

LEFTOVER_WAIT = 3000  # milliseconds that dropping what a failed build left may take; longer, and the next run does it

_FIND = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), x.indisvalid, x.indisunique, pg_get_indexdef(c.oid),
       (SELECT min(pid) FROM pg_stat_progress_create_index WHERE index_relid = c.oid AND datid = d.oid)
FROM pg_class t
JOIN pg_class c ON c.relnamespace = t.relnamespace AND c.relname = (parse_ident(%(name)s))[1]::name
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_index x ON x.indexrelid = c.oid AND x.indrelid = t.oid
JOIN pg_database d ON d.datname = current_database()
WHERE t.oid = to_regclass(%(table)s)
"""
_INVALID = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), x.indrelid::regclass::text
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind = 'i' AND NOT x.indisvalid
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = c.oid)
ORDER BY 1
"""
# REINDEX CONCURRENTLY builds under such a name, and puts the old index aside under the other (manual, REINDEX).
_OF_REINDEX = re.compile(r"_cc(new|old)\d*\"?$")


class _Found(NamedTuple):
    """An index as the catalog knows it; `builder` is the pid of who builds it right now."""

    name: str
    valid: bool
    unique: bool
    definition: str
    builder: int | None


def build(
    connection: Connection,
    index: ConcurrentIndex,
    statement: str,
    *,
    report: Report,
    contention: Contention | None,
    failed: Callable[[str, Sequence[str]], MigrationError],
) -> None:
    """Run a CREATE INDEX CONCURRENTLY so that the index is there and valid afterwards; a valid one is left alone.

    `failed` makes an error of what is wrong and what to do. Raises it, psycopg's errors, and LockTimeout where another
    session builds the index at the moment and does not end. The connection is in autocommit mode.
    """
    found = _find(connection, index)
    while found is not None and not found.valid and found.builder is not None:
        error = failed(f"Another session builds the index {found.name} at the moment.", ["Run this again later."])
        if contention is None:
            raise error
        contention.pause(error, found.builder)
        found = _find(connection, index)
    with patience(connection):
        if found is not None and not found.valid:
            report(f"Dropping the INVALID index {found.name}, which a build that failed has left")
            _drop(connection, found)
        if found is not None and found.valid:
            report(f"{found.name} is there and valid, it is not built again: {found.definition}")
        else:
            try:
                connection.execute(statement, prepare=False)
            except psycopg.Error:
                _drop_leftover(connection, index)
                raise
    if trouble := _trouble(connection, index):
        raise failed(*trouble)


def _find(connection: Connection, index: ConcurrentIndex) -> _Found | None:
    row = connection.execute(_FIND, {"name": index.name, "table": index.table}).fetchone()
    return None if row is None else _Found(*row)  # type: ignore[arg-type]


def _drop(connection: Connection, found: _Found) -> None:
    connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {found.name}".encode())


def _drop_leftover(connection: Connection, index: ConcurrentIndex) -> None:
    """Drop what a build that failed has left: it burdens writers, and a unique one refuses their rows already."""
    with suppress(psycopg.Error):  # the next run will
        found = _find(connection, index)
        if found is not None and not found.valid and found.builder is None:
            connection.execute(f"SET lock_timeout = {LEFTOVER_WAIT}")
            _drop(connection, found)


def _trouble(connection: Connection, index: ConcurrentIndex) -> tuple[str, list[str]] | None:
    found = _find(connection, index)
    if found is None:
        return f"The index {index.name} on {index.table} is not there after it was built.", ["Run this again."]
    if not found.valid:
        return f"The index {found.name} is INVALID after it was built.", ["Run this again: it is rebuilt."]
    if index.unique and not found.unique:
        return (
            f"An index of the name {found.name} is there, and it is not unique: {found.definition}",
            [f"Drop it (DROP INDEX CONCURRENTLY {found.name};), or give the new one another name."],
        )
    return None


def warnings(connection: Connection) -> list[str]:
    """Name the INVALID indexes of the schema that nobody builds at the moment, with the statement that removes each.

    They cost every write, and no query uses them.
    """
    lines = []
    for name, table in connection.execute(_INVALID).fetchall():
        if _OF_REINDEX.search(str(name)):
            lines.append(
                f"Warning: {name} on {table} is what an interrupted REINDEX CONCURRENTLY left: "
                f"DROP INDEX CONCURRENTLY {name};"
            )
        else:
            lines.append(
                f"Warning: the index {name} on {table} is INVALID: no query uses it, every write pays for it. "
                f"REINDEX INDEX CONCURRENTLY {name}; or DROP INDEX CONCURRENTLY {name};"
            )
    return lines

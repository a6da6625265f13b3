"""Build the performance indexes (shared/db/performance_indexes.py) where they are missing or INVALID.

For production-like environments, at the end of a deploy and under the migration lock. One by one, concurrently, so that
neither readers nor writers wait. What is valid is left alone, and nothing is ever dropped that is valid.
"""

from typing import NamedTuple

import psycopg
from psycopg import sql

from migrations import concurrent_index, lock
from migrations.connection import Connection, connect
from migrations.contention import Contention
from migrations.kinds import ConcurrentIndex
from migrations.progress import Progress, Report
from migrations.watcher import Watcher
from shared.db.performance_indexes import INDEXES, PerformanceIndex
from shared.errors import MigrationError

UNUSED_AFTER = 30  # days without a scan
UNUSED_ABOVE = 1 << 20  # bytes of its table; a smaller one is read whole, and that is right

_FIND = """
SELECT wanted.name, i.oid IS NOT NULL, coalesce(x.indisvalid, true), pg_get_indexdef(x.indexrelid),
       format('CREATE %%sINDEX %%I ON %%I.%%I %%s', wanted.kind, wanted.name, n.nspname, wanted.on_table,
              wanted.definition),
       x.indexrelid::regclass::text
FROM unnest(%(names)s::text[], %(kinds)s::text[], %(tables)s::text[], %(definitions)s::text[])
     AS wanted (name, kind, on_table, definition)
JOIN pg_namespace n ON n.nspname = current_schema()
JOIN pg_class t ON t.relname = wanted.on_table AND t.relnamespace = n.oid AND t.relkind = 'r'
LEFT JOIN pg_class i ON i.relname = wanted.name AND i.relnamespace = n.oid
LEFT JOIN pg_index x ON x.indexrelid = i.oid AND x.indrelid = t.oid
"""
# The day on which it was built stands in its comment: the catalog does not know.
_UNUSED = """
SELECT indexrelname, relname, indexrelid::regclass::text
FROM pg_stat_user_indexes JOIN pg_stat_database ON datname = current_database()
WHERE schemaname = current_schema() AND indexrelname = ANY (%(names)s) AND idx_scan = 0
  AND pg_table_size(relid) >= %(bytes)s
  AND greatest(stats_reset, substring(obj_description(indexrelid) FROM 'built on (\\d{4}-\\d\\d-\\d\\d)')::timestamptz)
      < now() - make_interval(days => %(days)s)
"""


class _State(NamedTuple):
    name: str
    is_there: bool
    is_valid: bool
    definition: str | None  # None where the name belongs to something else
    wanted: str
    qualified: str | None


def missing(connection: Connection) -> list[str]:
    """List the indexes that `build` would build, or build anew; those whose table is not there are not missing."""
    return [index.name for index in _to_build(connection)]


def build(guard: Connection, *, report: Report, wait: float = lock.WAIT, interval: float = 0.5) -> list[str]:
    """Build what is missing, and give the names. `guard` is the autocommit connection that holds the migration lock.

    Raises MigrationError: the schema is migrated by then, and the next deploy tries again.
    """
    if not (wanted := _to_build(guard)):
        return []
    progress = Progress(report, "Built")
    # Nothing here has a lock_timeout: nobody queues behind a concurrent build.
    contention = Contention(guard, report, wait=wait, lock_timeout=0.0, interval=interval)
    with connect() as connection, Watcher(guard, progress, contention, report, interval=interval):
        progress.backend_pid = connection.info.backend_pid
        for index in wanted:
            try:
                report(f"Building the performance index {index.name} on {index.table}")
                _build(connection, index, report, contention)
            except psycopg.Error as error:
                raise _failed(index, f"{error.diag.message_primary or error}", error.sqlstate) from None
            except KeyboardInterrupt:
                report(
                    f"Interrupted in building {index.name}. The migrations are applied; the next run builds it anew."
                )
                raise
    return [index.name for index in wanted]


def remarks(connection: Connection) -> list[str]:
    """Name what is not as declared and left alone, what is INVALID, and what no query has used for long."""
    lines = []
    for state in _states(connection):
        if state.is_there and state.definition is None:
            lines.append(
                f"Warning: {state.name} was to be a performance index, and is something else in this database."
            )
        elif state.is_valid and state.definition is not None and state.definition != state.wanted:
            lines.append(
                f"Warning: the index {state.name} is not as shared/db/performance_indexes.py declares it, and was left "
                f"alone. It is: {state.definition}. To have it built anew: DROP INDEX CONCURRENTLY {state.qualified};"
            )
    parameters = {"names": [index.name for index in INDEXES], "days": UNUSED_AFTER, "bytes": UNUSED_ABOVE}
    for name, table, qualified in connection.execute(_UNUSED.encode(), parameters).fetchall():
        lines.append(
            f"No query has used the performance index {name} on {table} for {UNUSED_AFTER} days (on this server; "
            f"standbys count for themselves). If none is to: remove it from shared/db/performance_indexes.py, and "
            f"DROP INDEX CONCURRENTLY {qualified};"
        )
    return [*lines, *concurrent_index.warnings(connection)]


def _to_build(connection: Connection) -> list[PerformanceIndex]:
    states = {state.name: state for state in _states(connection)}
    return [
        index
        for index in INDEXES
        if (state := states.get(index.name)) is not None and not (state.is_there and state.is_valid)
    ]


def _states(connection: Connection) -> list[_State]:
    parameters = {
        "names": [index.name for index in INDEXES],
        "kinds": ["UNIQUE " if index.unique else "" for index in INDEXES],
        "tables": [index.table for index in INDEXES],
        "definitions": [index.definition for index in INDEXES],
    }
    rows = connection.execute(_FIND.encode(), parameters).fetchall()
    return [_State(*row) for row in rows]  # type: ignore[arg-type]


def _build(connection: Connection, index: PerformanceIndex, report: Report, contention: Contention) -> None:
    concurrent_index.build(
        connection,
        ConcurrentIndex(f'"{index.name}"', f'"{index.table}"', index.unique),
        index.statement,
        report=report,
        contention=contention,
        failed=lambda reason, _: _failed(index, reason),
    )
    today = connection.execute("SELECT current_date::text").fetchone()
    assert today is not None
    comment = f"{index.why} Performance index, built on {today[0]}"
    connection.execute(sql.SQL("COMMENT ON INDEX {} IS {}").format(sql.Identifier(index.name), sql.Literal(comment)))


def _failed(index: PerformanceIndex, reason: str, sqlstate: str | None = None) -> MigrationError:
    return MigrationError(
        f"The migrations are applied; building the performance index {index.name} on {index.table} failed: {reason}",
        solutions=[
            "Run this again: what an interrupted build has left is dropped first.",
            "If the table has changed, change or remove the index in shared/db/performance_indexes.py.",
        ],
        sqlstate=sqlstate,
    )

"""What a database holds, as text to compare: schema from PostgreSQL's own catalogs, and rows."""

from typing import LiteralString

import psycopg
from psycopg import sql

from migrations.ledger import TABLES

_SCHEMA: tuple[LiteralString, ...] = (
    "SELECT 'relation', relname::text, relkind::text, obj_description(oid, 'pg_class') FROM pg_class "
    "WHERE relnamespace = 'public'::regnamespace",
    "SELECT 'column', attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull::text, "
    "attidentity::text, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum) "
    "FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
    "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
    "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped",
    "SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid::text FROM pg_index "
    "JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = 'public'::regnamespace",
)
_ROUTINES: tuple[LiteralString, ...] = (
    "SELECT 'function', oid::regprocedure::text, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
)


def schema(url: str, *, routines: bool = True) -> list[str]:
    """List tables, columns, constraints, indexes and comments; functions and triggers too unless told otherwise."""
    with psycopg.connect(url) as connection:
        found = []
        for query in _SCHEMA + (_ROUTINES if routines else ()):
            found += [" | ".join(map(str, row)) for row in connection.execute(query)]
        return sorted(line for line in found if not any(name in line for name in ("alembic_version", *TABLES)))


def tables(url: str) -> list[str]:
    """List the names of the tables, without those that the runner keeps for itself."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    return [str(row[0]) for row in rows(url, query) if row[0] not in TABLES]


def contents(url: str) -> dict[str, list[str]]:
    """Give every row of every table, with the transaction that wrote it."""
    with psycopg.connect(url) as connection:
        return {
            table: [
                str(row)
                for row in connection.execute(
                    sql.SQL("SELECT xmin::text, t.* FROM {} t ORDER BY t.ctid").format(sql.Identifier(table))
                )
            ]
            for table in tables(url)
        }


def rows(url: str, query: LiteralString) -> list[tuple[object, ...]]:
    """Run one query on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def revision(url: str) -> str | None:
    """Give the revision that the database says it is at."""
    if "alembic_version" not in tables(url):
        return None
    found = rows(url, "SELECT version_num FROM alembic_version")
    return str(found[0][0]) if found else None

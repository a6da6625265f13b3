"""What is in a database: rows of each table, extensions, roles, schema revision; and whether there is anything."""

from typing import Any, NamedTuple

from psycopg import sql

from migrations.connection import Connection

_OWN_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_NOT_OF_AN_EXTENSION = """NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = {catalog}::regclass AND e.objid = {oid} AND e.deptype = 'e')"""

_TABLES = f"""
SELECT n.nspname, c.relname, pg_table_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND {_OWN_SCHEMA} AND {_NOT_OF_AN_EXTENSION.format(catalog="'pg_class'", oid="c.oid")}
ORDER BY 1, 2
"""  # noqa: S608 - our own text

# Everything of users that a schema can hold, but what goes with something else: indexes, row types, array types.
_OBJECTS = f"""
SELECT n.nspname, o.catalog, o.oid, i.type, i.identity FROM (
    SELECT 'pg_class'::regclass AS catalog, oid, relnamespace AS schema FROM pg_class
     WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
    UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type
     WHERE typtype IN ('e', 'd', 'r', 'b') AND typelem = 0
        OR typtype = 'c' AND typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')
    UNION ALL SELECT 'pg_collation'::regclass, oid, collnamespace FROM pg_collation
    UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace FROM pg_operator
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace FROM pg_opfamily
    UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace FROM pg_conversion
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace FROM pg_ts_dict
) o JOIN pg_namespace n ON n.oid = o.schema, pg_identify_object(o.catalog, o.oid, 0) i
WHERE {_OWN_SCHEMA} AND {_NOT_OF_AN_EXTENSION.format(catalog="o.catalog", oid="o.oid")}
ORDER BY 1, array_position(ARRAY['table', 'type'], i.type), 5  -- sequences and functions may belong to one of these
"""  # noqa: S608 - our own text

_SCHEMAS = f"""
SELECT n.nspname, EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid)
FROM pg_namespace n
WHERE {_OWN_SCHEMA} AND {_NOT_OF_AN_EXTENSION.format(catalog="'pg_namespace'", oid="n.oid")}
ORDER BY 1
"""  # noqa: S608 - our own text

# Beside schemas, what a dump makes anew and would find in its way.
_BESIDE = f"""
SELECT replace(i.type, '-', ' '), i.identity FROM (
    SELECT 'pg_publication'::regclass AS catalog, oid FROM pg_publication
    UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
) o, pg_identify_object(o.catalog, o.oid, 0) i
WHERE {_NOT_OF_AN_EXTENSION.format(catalog="o.catalog", oid="o.oid")}
"""  # noqa: S608 - our own text

# Not of what goes with something else: a range type's functions are the superuser's.
_OWNERS = """
SELECT DISTINCT pg_get_userbyid(owner) FROM (
    SELECT relowner AS owner, 'pg_class'::regclass AS catalog, oid FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT proowner, 'pg_proc'::regclass, oid FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT typowner, 'pg_type'::regclass, oid FROM pg_type WHERE oid >= 16384 AND typcategory <> 'A'
    UNION ALL SELECT nspowner, 'pg_namespace'::regclass, oid FROM pg_namespace
     WHERE oid >= 16384 AND nspname !~ '^pg_'
    UNION ALL SELECT lomowner, 'pg_largeobject'::regclass, oid FROM pg_largeobject_metadata
) o
WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.catalog AND e.objid = o.oid AND e.deptype IN ('e', 'i'))
"""

# Roles that rights and policies name; owners are among them.
_ROLES = """
SELECT DISTINCT r.rolname FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_authid'::regclass AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_FIND_HEAD = f"""
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'alembic_version' AND {_OWN_SCHEMA}
ORDER BY n.nspname = current_schema() DESC NULLS LAST LIMIT 1
"""  # noqa: S608 - our own text


class Contents(NamedTuple):
    """What one snapshot holds: rows and bytes by table."""

    tables: dict[str, int]
    table_bytes: dict[str, int]
    large_objects: int
    extensions: dict[str, str]
    owners: list[str]
    roles: list[str]
    schema_head: str | None


def read(connection: Connection) -> Contents:
    """Count and list, in the transaction that the caller has begun.

    Raises psycopg.Error where row-level security would hide rows, or a table may not be read: pg_dump would fail too.
    """
    connection.execute("SET LOCAL row_security = off")
    tables, sizes = {}, {}
    for schema, table, size in _rows(connection, _TABLES):
        # ONLY: the rows of tables that inherit are counted with those.
        count = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))
        tables[f"{schema}.{table}"] = int(_rows(connection, count)[0][0])
        sizes[f"{schema}.{table}"] = int(size)
    ((large_objects,),) = _rows(connection, "SELECT count(*) FROM pg_largeobject_metadata")
    extensions = dict(_rows(connection, "SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql'"))
    owners = sorted(row[0] for row in _rows(connection, _OWNERS))
    roles = sorted({row[0] for row in _rows(connection, _ROLES)} | set(owners))
    return Contents(tables, sizes, int(large_objects), extensions, owners, roles, _schema_head(connection))


def is_empty(connection: Connection) -> bool:
    """Tell whether a database holds nothing of its users: extensions, and empty schemas, do not count."""
    ((large_objects,),) = _rows(connection, "SELECT count(*) FROM pg_largeobject_metadata")
    return not (large_objects or _rows(connection, _OBJECTS) or _rows(connection, _BESIDE))


def emptying(connection: Connection) -> list[str]:
    """Give the SQL that removes everything of users from a database; extensions stay where they are."""
    kept = {"public", *(schema for schema, has_extension in _rows(connection, _SCHEMAS) if has_extension)}
    statements = [f"DROP {kind} IF EXISTS {identity} CASCADE;" for kind, identity in _rows(connection, _BESIDE)]
    for schema, _ in _rows(connection, _SCHEMAS):
        if schema not in kept:
            statements.append(sql.SQL("DROP SCHEMA {} CASCADE;").format(sql.Identifier(schema)).as_string(connection))
    for schema, _, _, kind, identity in _rows(connection, _OBJECTS):
        if schema in kept:
            statements.append(f"DROP {kind} IF EXISTS {identity} CASCADE;")
    statements.append("SELECT lo_unlink(oid) FROM pg_largeobject_metadata;")
    return statements


def _schema_head(connection: Connection) -> str | None:
    found = _rows(connection, _FIND_HEAD)
    if not found:
        return None
    query = sql.SQL("SELECT max(version_num) FROM {}").format(sql.Identifier(found[0][0], "alembic_version"))
    head: str | None = _rows(connection, query)[0][0]
    return head


def _rows(connection: Connection, query: str | sql.Composed) -> list[Any]:
    return connection.execute(query.encode() if isinstance(query, str) else query).fetchall()

"""The server as the checks see it: one connection, read-only transactions, and what holds for all of them.

Everything runs inside transactions, so that it works through a transaction pooler: the limits of a statement are set
with the transaction and end with it. That costs one round trip for the whole report, and two more for each statement
that fails, beside one a statement.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

from shared import deadline
from shared.db.drivers import Connection, Row
from shared.db.session import identifier
from shared.db.url import DatabaseURL
from shared.errors import Error

STATEMENT_TIMEOUT = 2.0  # seconds; none of the queries reads a table of the user, so each takes milliseconds
LOCK_TIMEOUT = 0.2  # seconds; a check must not queue for a lock, where others would queue behind it
_BEGIN = "BEGIN READ ONLY"

# pg_catalog alone as the search path has names written with their schema, and nobody's function called in place of
# the system's. It holds from the next statement on, so this one writes it out, and looks for our tables first.
_FACTS = f"""
SELECT
    (SELECT n.nspname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = pg_catalog.to_regclass('alembic_version')) AS migrated_schema,
    pg_catalog.set_config('statement_timeout', '{STATEMENT_TIMEOUT * 1000:.0f}', true),
    pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT * 1000:.0f}', true),
    pg_catalog.set_config('search_path', 'pg_catalog', true),
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_version_num')::int AS version_number,
    pg_catalog.pg_is_in_recovery() AS is_standby,
    pg_catalog.pg_backend_pid() AS pid,
    current_user::text AS role,
    pg_catalog.current_database()::text AS database,
    pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS reads_all,
    pg_catalog.current_setting('block_size')::int AS block_size,
    pg_catalog.current_setting('max_connections')::int AS max_connections,
    pg_catalog.current_setting('superuser_reserved_connections')::int
        + pg_catalog.current_setting('reserved_connections')::int AS reserved,
    (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user) AS role_limit,
    (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS database_limit,
    (SELECT nspname::text FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
        WHERE extname = 'pg_stat_statements') AS statements_schema
"""  # noqa: S608 - two numbers of ours


@dataclass(frozen=True)
class Facts:
    """What the first statement told."""

    migrated_schema: str | None  # where alembic_version is
    version: str
    version_number: int
    is_standby: bool
    pid: int
    role: str
    database: str
    reads_all: bool  # what other roles do: pg_read_all_stats, which pg_monitor has
    block_size: int
    max_connections: int
    reserved: int  # of them, for superusers and pg_use_reserved_connections
    role_limit: int  # -1: none
    database_limit: int
    statements_schema: str | None  # where pg_stat_statements is

    @property
    def major(self) -> int:
        """Give the major version."""
        return self.version_number // 10000

    @property
    def slots(self) -> int:
        """Give how many connections ordinary roles may have in all."""
        return self.max_connections - self.reserved


class Server:
    """Ask the server; every method raises shared.errors. `is_ours`: the connection is one of this process's pool."""

    def __init__(self, connection: Connection, url: DatabaseURL | None, *, is_ours: bool = False) -> None:
        self.connection = connection
        self.url = url
        self.is_ours = is_ours
        self.facts = self._begin()

    def rows(self, sql: str) -> list[Row]:
        """Run one statement; one round trip. After one that failed, the next goes into a new transaction."""
        if not self.connection.in_transaction:
            self._begin()
        try:
            return self.connection.fetch(sql)
        except Error:
            self.end()
            raise

    def row(self, sql: str) -> Row:
        """Run a statement that gives exactly one row."""
        (row,) = self.rows(sql)
        return row

    def end(self) -> None:
        """End the transaction; never raises."""
        if not self.connection.closed:
            with contextlib.suppress(Error), deadline.fresh(1.0):
                self.connection.end("ROLLBACK")

    @property
    def role(self) -> str:
        """Give the name of this role, quoted for SQL."""
        return identifier(self.facts.role)

    @property
    def grant(self) -> str:
        """Give the statement that lets this role see what all sessions do (manual 22.5, predefined roles)."""
        return f"GRANT pg_monitor TO {self.role};"

    def _begin(self) -> Facts:
        self.connection.begin(_BEGIN)
        row: dict[str, Any] = self.connection.fetch(_FACTS)[0]
        return Facts(**{name: row[name] for name in Facts.__dataclass_fields__})

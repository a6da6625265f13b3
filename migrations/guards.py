"""What must hold before a migration touches a database.

Our runner and stock Alembic commands (through env.py) pass the same guards, in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from migrations import connection as connections
from migrations import lock
from migrations.connection import Connection, session
from shared.errors import Refused
from shared.settings import Settings


class Facts(NamedTuple):
    """What the server says of itself and of this session."""

    in_recovery: bool
    read_only: bool
    schema: str | None
    may_create: bool | None
    quoted_schema: str | None
    quoted_user: str
    backend_pid: int


COLUMNS = """
pg_is_in_recovery(),
current_setting('transaction_read_only')::boolean,
current_schema(),
has_schema_privilege(current_schema(), 'CREATE'),
quote_ident(current_schema()),
quote_ident(current_user),
pg_backend_pid()
"""


@contextmanager
def guarded(*, lock_wait: float = lock.WAIT, report: Callable[[str], None]) -> Iterator[Connection]:
    """Pass the guards and hold the migration lock; gives the lock's connection, which is in autocommit mode.

    Waits up to `lock_wait` seconds for another runner. Raises Refused, LockTimeout, DatabaseUnavailable, and
    MigrationError where the lock was lost meanwhile.
    """
    with session() as connection:
        check_writable(connection, facts(connection))
        with lock.hold(connection, wait=lock_wait, report=report):
            connections.lift_transaction_timeout(connection)
            yield connection


def facts(connection: Connection) -> Facts:
    """Ask for the facts alone."""
    row = connection.execute(f"SELECT {COLUMNS}".encode()).fetchone()
    assert row is not None
    return Facts(*row)  # type: ignore[arg-type]


def check_writable(connection: Connection, facts: Facts) -> None:
    """Refuse a pooler, a standby, a read-only database, and a user who may not create tables."""
    connections.check_direct(connection, facts.backend_pid)
    if facts.in_recovery:
        raise Refused(
            "The server is a standby (read replica), which cannot be migrated.",
            solutions=["Point DATABASE_URL at the primary; the standby follows by itself."],
        )
    if facts.read_only:
        raise Refused(
            "The database is read-only (default_transaction_read_only is on).",
            solutions=["Ask the provider why; some switch a database to read-only when its disk is full."],
        )
    if facts.schema is None:
        raise Refused(
            "No schema of this user's search_path exists, so that tables could not be created anywhere.",
            solutions=["Create it, or mend search_path: SHOW search_path tells what it is."],
        )
    if not facts.may_create:
        raise Refused(
            f"The user {facts.quoted_user} may not create tables in the schema {facts.schema}.",
            solutions=[f"As its owner: GRANT CREATE ON SCHEMA {facts.quoted_schema} TO {facts.quoted_user};"],
        )


def check_allowed(settings: Settings, *, force: bool = False) -> None:
    """Refuse to change a production database where that must be asked for by MIGRATION_FORCE or `force`."""
    if settings.is_production_like and settings.migration_require_force and not (force or settings.migration_force):
        raise Refused(
            f"MIGRATION_REQUIRE_FORCE is true and the environment is {settings.environment}: "
            "migrations run only when asked for by name.",
            solutions=["See what would run: db migrate --dry-run", "Then: db migrate --force, or MIGRATION_FORCE=true"],
        )

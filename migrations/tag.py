"""The environment tag: which environment a database belongs to, written into it by its first migration.

It keeps a preview build, or a test run with the wrong DATABASE_URL, from migrating production.
"""

from dataclasses import replace
from typing import cast

import psycopg

from migrations import connection as connections
from migrations.connection import Connection
from shared.errors import EnvironmentMismatch
from shared.settings import DEFAULT_ADMIN_PASSWORD, Environment, Settings

_WRITE = """
INSERT INTO migration_state (environment) VALUES (%s)
ON CONFLICT (only_row) DO UPDATE SET environment = excluded.environment, changed_at = now()
"""


def read(connection: Connection) -> Environment | None:
    """Give the tag; None where there is none yet."""
    try:
        row = connection.execute("SELECT environment FROM migration_state").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else cast(Environment | None, row[0])


def write(connection: Connection, environment: Environment) -> None:
    """Set the tag; the ledger's tables are there."""
    connection.execute(_WRITE, [environment])


def in_force(settings: Settings, tag: Environment | None) -> Settings:
    """Give the settings of the environment in force for a database with this tag.

    That is the environment that is named (APP_ENV and its like), else the tag's, else by where the database is: one
    that is not local counts as production. Raises EnvironmentMismatch where a named one is not the database's.
    """
    local = connections.direct_url().is_local
    theirs = tag or (settings.environment if local else "production")
    if settings.environment_is_named and settings.environment != theirs:
        why = f"is tagged {tag}" if tag else "carries no tag and is not local, so it counts as production"
        raise EnvironmentMismatch(
            f"The environment is {settings.environment}, and the database {why}: it is not migrated from here.",
            solutions=[
                f"Point DATABASE_URL at the database of {settings.environment}.",
                f"If this one is {settings.environment}'s own: db migrate tag {settings.environment}",
            ],
        )
    found = replace(settings, environment=theirs)
    if found.admin_initial_password is None and not found.is_production_like:
        return replace(found, admin_initial_password=DEFAULT_ADMIN_PASSWORD)
    return found

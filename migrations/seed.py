"""Essential data of a new database: the plans, and one admin user.

Runs at the end of every deploy, under the migration lock, so that two deploys make one admin. It adds what is missing
and never changes what is there.
"""

import re

import psycopg
from psycopg.types.json import Jsonb

from migrations.connection import Connection
from shared.db.schema_head import TABLES
from shared.errors import ConfigurationError, MigrationError
from shared.settings import DEFAULT_ADMIN_PASSWORD, Settings

MINIMUM_PASSWORD_LENGTH = 12  # as shared.web.auth has it, whose imports a deploy with nothing to do does not pay for

PLANS = (
    # code, name, price in cents, currency, billing interval, features
    ("free", "Free", 0, "USD", "month", {"seats": 1, "support": "community"}),
    ("pro_monthly", "Pro, monthly", 1900, "USD", "month", {"seats": 5, "support": "email"}),
    ("pro_yearly", "Pro, yearly", 19000, "USD", "year", {"seats": 5, "support": "email"}),
)

# What must hold afterwards, where the schema of this code has the table.
_CONDITIONS = (
    ("plans", "plans", "EXISTS (SELECT FROM plans)"),
    ("admin user", "users", "EXISTS (SELECT FROM users WHERE role = 'admin')"),
)
CONDITIONS = {thing: condition for thing, table, condition in _CONDITIONS if table in TABLES}
_ADD_ADMIN = """
INSERT INTO users (email, password_hash, role, must_change_password) VALUES (%s, %s, 'admin', true)
ON CONFLICT ((lower(email))) DO NOTHING
"""
_ADD_PLAN = """
INSERT INTO plans (code, name, price_cents, currency, billing_interval, features) VALUES (%s, %s, %s, %s, %s, %s)
"""


def missing(connection: Connection, *, before_migrating: bool = False) -> list[str]:
    """List which of "plans" and "admin user" this database lacks.

    A table that is not there lacks nothing, unless the migrations that make it are still to come.
    """
    return [
        thing
        for thing, condition in CONDITIONS.items()
        if not _truth(connection, condition, without_table=not before_migrating)
    ]


def check(connection: Connection, settings: Settings) -> None:
    """Raise ConfigurationError where an admin user has to be made and may not be made from these settings.

    To be called before anything is changed: a deploy must not stop half-way for a password.
    """
    if "admin user" not in missing(connection, before_migrating=True):
        return
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", settings.admin_email):
        raise ConfigurationError("ADMIN_EMAIL is not an e-mail address.", solutions=["Write it as NAME@HOST."])
    password = settings.admin_initial_password
    if not settings.is_production_like:
        return
    if password is None:
        trouble = "ADMIN_INITIAL_PASSWORD is not set"
    elif password == DEFAULT_ADMIN_PASSWORD:
        trouble = "ADMIN_INITIAL_PASSWORD is the documented default, which everybody knows"
    elif len(password) < MINIMUM_PASSWORD_LENGTH:
        trouble = f"ADMIN_INITIAL_PASSWORD is shorter than {MINIMUM_PASSWORD_LENGTH} characters"
    else:
        return
    raise ConfigurationError(
        f"{trouble}, and the database has no admin user yet (environment: {settings.environment}). "
        "Nothing was changed.",
        solutions=["Set it for the first deploy, for example to the output of: openssl rand -base64 32"],
    )


def run(connection: Connection, settings: Settings) -> list[str]:
    """Add what is missing in one transaction; gives a line for each thing done, or that could not be done."""
    lines = []
    lacks = missing(connection)
    try:
        with connection.transaction():
            if "plans" in lacks:
                connection.cursor().executemany(_ADD_PLAN, [(*plan[:-1], Jsonb(plan[-1])) for plan in PLANS])
                lines.append(f"Added {len(PLANS)} plans")
            if "admin user" in lacks:
                lines.append(_add_admin(connection, settings))
    except psycopg.Error as error:
        raise MigrationError(
            f"The migrations are applied; adding the essential data failed: {error.diag.message_primary or error}",
            solutions=["Compare migrations/seed.py with the tables, then run this again."],
            sqlstate=error.sqlstate,
        ) from None
    return lines


def _add_admin(connection: Connection, settings: Settings) -> str:
    assert settings.admin_initial_password is not None  # check() has passed
    from shared.web.auth import hash_password  # which loads what answers requests

    email = settings.admin_email
    cursor = connection.execute(_ADD_ADMIN, (email, hash_password(settings.admin_initial_password)))
    if cursor.rowcount == 1:
        return f"Added the admin user {email}; the password must be changed at the first sign-in"
    return f"Warning: there is no admin user, and {email} (ADMIN_EMAIL) belongs to an ordinary one, who was left alone"


def _truth(connection: Connection, condition: str, *, without_table: bool) -> bool:
    try:
        row = connection.execute(f"SELECT {condition}".encode()).fetchone()
    except psycopg.errors.UndefinedTable:
        return without_table
    return row is not None and bool(row[0])

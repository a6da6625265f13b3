"""`db roles`: one role owns the tables and migrates, another reads and writes rows for the application.

Who gets hold of the application's password then changes no table, and drops none. The SQL may run again and again: it
gives what is missing and takes what is too much.
"""

import json
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ops.secret import make
from ops.vaults import File, with_login
from shared.db import drivers, scram
from shared.db.drivers import Connection
from shared.db.providers import role_of
from shared.db.session import identifier, role_settings
from shared.db.session import limits as session_limits
from shared.db.sizes import pool_size
from shared.db.url import DatabaseURL
from shared.errors import DatabaseError, DirectConnectionRequired, Refused
from shared.settings import Settings, get_settings

ROOT = Path(__file__).resolve().parent.parent
# What migrations write, and the application only reads.
LEDGERS = ("alembic_version", "migration_ledger", "migration_state")
_CONNECT_TIMEOUT = 15.0  # seconds; a database at rest wakes up


def run(
    app: Annotated[
        str | None, typer.Option("--app", help="Name of the application's role.", show_default="DATABASE_app")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Name of the role that migrates.", show_default="DIRECT_URL's")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Run it, as the role of DIRECT_URL.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
) -> None:
    """Print the SQL that gives the application a role of its own, beside the owner that migrates."""
    settings = get_settings()
    direct = settings.direct_database_url
    if direct is None:
        raise DirectConnectionRequired(
            "DATABASE_URL leads to a pooler, and roles are made on the server itself.",
            solutions=["Set DIRECT_URL to the provider's direct connection string, of the role that migrates."],
        )
    role, migrator = app or f"{direct.database}_app", owner or role_of(direct)
    statements = split(settings, direct.database, migrator, role)
    if as_json:
        print(json.dumps({"owner": migrator, "app": role, "sql": statements}, indent=2))  # noqa: T201
    elif not apply:
        print("\n".join(statements))  # noqa: T201
    if apply:
        for line in _apply(settings, direct, migrator, role, statements):
            typer.echo(line, err=as_json)


def split(settings: Settings, database: str, owner: str, app: str) -> list[str]:
    """Give the statements, for the owner or a superuser; the role is made without a password. Raises Refused."""
    if app == owner:
        raise Refused(
            f"{app} is the role that migrates: the application needs another.", solutions=["Name it with --app."]
        )
    database, role, migrator = identifier(database), identifier(app), identifier(owner)
    limits = session_limits(request_timeout=settings.request_timeout, idle_timeout=pool_size(settings).idle_timeout)
    literal = app.replace("'", "''")
    ledgers = ", ".join(f"'{name}'" for name in LEDGERS)
    return [
        f"DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{literal}') THEN"
        f" CREATE ROLE {role} LOGIN; END IF; END $do$;",
        *role_settings(limits, app),
        f"GRANT CONNECT ON DATABASE {database} TO {role};",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {migrator};",
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC;",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
        f"GRANT USAGE ON SCHEMA public TO {role};",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role};",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA public"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role};",
        # The ledgers of migrations are read by health checks, and written by their owner alone.
        "DO $do$ DECLARE ledger regclass; BEGIN FOR ledger IN SELECT oid FROM pg_class"  # noqa: S608 - names of ours
        f" WHERE relnamespace = 'public'::regnamespace AND relname IN ({ledgers}) LOOP"
        f" EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %s FROM %I', ledger, '{literal}'); END LOOP; END $do$;",
    ]


def _apply(settings: Settings, direct: DatabaseURL, owner: str, app: str, statements: Sequence[str]) -> Sequence[str]:
    """Run the statements in one transaction; give the role a password, kept in a file, where it has none yet."""
    name = re.sub(r"[^\w.-]", "_", f"{app}-{direct.host}-{direct.port}-{direct.database}")
    file = File("DATABASE_URL", ROOT / ".data" / f"role-{name}.url", lambda: "", ())
    with closing(drivers.connect(direct, settings.database_driver, connect_timeout=_CONNECT_TIMEOUT)) as connection:
        if connection.fetch("SELECT FROM pg_roles WHERE rolname = %(name)s", {"name": app}):
            _run(connection, statements)
            kept = f" {file.path} still holds the first one." if file.pending() else ""
            return [f"{app} has its rights. Its password stays as it is.{kept}"]
        text = file.pending()  # of a run that was interrupted
        if text is None:
            text = with_login(settings.database_url.render(password=True), app, make())
            file.stage(text)  # before the server has its verifier: a password must not be lost
        verifier = scram.verifier(DatabaseURL.parse(text).password or "")
        _run(connection, [*statements, f"ALTER ROLE {identifier(app)} PASSWORD '{verifier}';"])
    return [
        f"{app} has its rights, and a password.",
        f"{file.path} holds its connection string: make that DATABASE_URL, leave DIRECT_URL to {owner}, and "
        "remove the file.",
    ]


def _run(connection: Connection, statements: Sequence[str]) -> None:
    try:
        connection.begin("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.end("COMMIT")
    except DatabaseError as error:
        if error.sqlstate != "42501":
            raise
        raise Refused(
            f"DIRECT_URL's role may not do this: {error.message}",
            solutions=[
                "Have an administrator run what db roles prints.",
                "Or set DIRECT_URL to an administrator's for this once, and name the role that migrates: --owner NAME",
            ],
            sqlstate=error.sqlstate,
        ) from error

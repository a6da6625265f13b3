"""`db doctor`: examine a connection string from its spelling to the last right, one step after the other."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing

from ops.doctor import budget, network, session
from ops.doctor.session import Look, Session
from ops.doctor.step import Step, failed
from shared import deadline
from shared.db.connector import Connector
from shared.db.diagnosis import diagnose
from shared.db.drivers import Connection
from shared.db.providers import better_for_functions, provider_of
from shared.db.schema_head import REVISION
from shared.db.schema_state import compare
from shared.db.session import limits as session_limits
from shared.db.sizes import pool_size
from shared.db.url import FOREIGN_PARAMETERS, DatabaseURL
from shared.errors import ConfigurationError, Error
from shared.settings import Settings


def examine(settings: Settings, *, timeout: float = 5.0) -> Iterator[Step]:
    """Give each step as it is done; the last one failed where there is no way on.

    Waits `timeout` seconds at most for each answer, and thrice as long for a connection: a database at rest wakes up.
    """
    try:
        url = settings.database_url
    except ConfigurationError as error:
        yield Step("Connection string", "fail", error.message, error.solutions, error.code)
        return
    yield _connection_string(url)
    unreachable: network.Unreachable | None = None
    try:
        yield from network.steps(url, timeout)
    except network.Unreachable as error:
        unreachable = error
    connector = _connector(settings, url)
    try:
        with deadline.within(3 * timeout):
            connection = connector.open()
    except Error as error:
        found = diagnose(error, url, probe=True, timeout=timeout)
        yield failed(unreachable.step if unreachable else "Log in", found)
        return
    with closing(connection):
        if unreachable:  # it came up meanwhile, or lets the driver in by another way
            yield Step(unreachable.step, "warn", f"At first it failed ({unreachable.reason}); the driver got through.")
        yield Step("Log in", "ok", f"{url.user} into {url.database}, with {settings.database_driver}")
        opened = Session(connection, connector, settings, url, connector.limits)
        yield from session.steps(opened, (*session.LOOKS, *_BEYOND), timeout)


def _connection_string(url: DatabaseURL) -> Step:
    provider = provider_of(url)
    said = [f"{url.masked()} ({provider.name})"]
    said += [f"{name}: {FOREIGN_PARAMETERS[name]}" for name in url.hints]
    better = better_for_functions(url)
    if better is not None:
        advice = f"{provider.note} Use {better.masked()}"
        return Step("Connection string", "warn", "; ".join(said), (advice,))
    return Step("Connection string", "ok", "; ".join(said + ([provider.note] if provider.note else [])))


def _connector(settings: Settings, url: DatabaseURL) -> Connector:
    size = pool_size(settings)
    limits = session_limits(request_timeout=settings.request_timeout, idle_timeout=size.idle_timeout)
    return Connector(url, driver=settings.database_driver, limits=limits, refresh=lambda: url)


def _direct(name: str, found: Session) -> Step:
    direct = found.settings.direct_database_url
    if direct is None or (direct == found.url and session.is_pooled(found.connection)):
        unknown = "Not known: migrations, locks and dumps cannot go through a pooler."
        return Step(name, "warn", unknown, ("Set DIRECT_URL to the provider's direct connection string.",))
    if direct == found.url:
        return Step(name, "ok", "The same: DATABASE_URL leads to the server itself")
    connector = _connector(found.settings, direct)
    with closing(connector.open()) as connection:
        if session.is_pooled(connection):
            advice = "Set DIRECT_URL to the server itself, past every pooler."
            return Step(name, "warn", f"{direct.masked()} leads to a pooler too", (advice,))
        if _identity(connection) != _identity(found.connection):
            advice = "Compare host and database of DIRECT_URL and DATABASE_URL: migrations would go elsewhere."
            return Step(name, "fail", f"{direct.masked()} is another database", (advice,))
    return Step(name, "ok", f"{direct.masked()} is the same database, without a pooler")


def _identity(connection: Connection) -> dict[str, object]:
    """Tell a database from any other, as far as every role may see it."""
    return connection.fetch(
        "SELECT oid::bigint, datname, pg_postmaster_start_time()::text AS since"
        " FROM pg_database WHERE datname = current_database()"
    )[0]


def _schema(name: str, found: Session) -> Step:
    connection = found.connection
    if not connection.fetch("SELECT to_regclass('alembic_version') IS NOT NULL AS there")[0]["there"]:
        return Step(name, "warn", "Not migrated yet", ("db migrate",))
    version = connection.fetch("SELECT max(version_num)::text AS version FROM alembic_version")[0]["version"]
    state = compare(version)
    at = f"At {version or 'no revision'}"
    if state == "equal":
        return Step(name, "ok", f"{at}, as this code expects")
    if state == "ahead":
        return Step(name, "warn", f"{at}, ahead of this code, which expects {REVISION}", ("Deploy the newer code.",))
    return Step(name, "warn", f"{at}, behind this code, which expects {REVISION}", ("db migrate",))


def _budget(name: str, found: Session) -> Step:
    return budget.step(name, found.connection, found.settings, pooled=found.connector.pooler != "none")


def _tools(name: str, found: Session) -> Step:
    """Compare pg_dump's version with the server's: an older one refuses a newer server."""
    program = shutil.which("pg_dump")
    server = (found.connection.parameter("server_version") or "").split(".")[0].split(" ")[0]
    advice = f"Install PostgreSQL's client programs, version {server} or newer."
    if program is None:
        return Step(name, "warn", "pg_dump is not installed: backups need it", (advice,))
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
        version = said.split()[2]
        major = int(re.match(r"\d+", version)[0])  # type: ignore[index] # also of 19devel and 19beta1
    except (OSError, subprocess.SubprocessError, IndexError, TypeError):
        return Step(name, "warn", f"{program} does not tell its version", (advice,))
    if major < int(server or 0):
        return Step(name, "warn", f"pg_dump {version} cannot dump a server of version {server}", (advice,))
    return Step(name, "ok", f"pg_dump {version}")


# What a session needs beside it: the direct way, the schema, room, and tools.
_BEYOND: tuple[tuple[str, Look], ...] = (
    ("Direct URL", _direct),
    ("Schema", _schema),
    ("Connection budget", _budget),
    ("Tools", _tools),
)

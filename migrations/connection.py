"""The migrations' own connections: direct, named, and outlived by nothing.

They are opened here rather than taken from the pool, because a migration holds session state (an advisory lock) and
may run for minutes.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from shared.db.providers import provider_of
from shared.db.session import identifier, startup_options
from shared.db.url import DatabaseURL
from shared.errors import DatabaseUnavailable, MigrationError, Refused
from shared.settings import get_settings

CONNECT_TIMEOUT = 15  # seconds; a database that scales to zero may have to wake up first
MINIMUM_MAJOR_VERSION = 16

Connection = psycopg.Connection[tuple[object, ...]]


def connect() -> Connection:
    """Open a connection to the server itself, in autocommit mode, that shows in pg_stat_activity who migrates.

    Raises DatabaseUnavailable, ConfigurationError; Refused where only a pooler is known, or the server is too old.
    """
    url = _direct_url()
    parameters = {
        "connect_timeout": str(CONNECT_TIMEOUT),
        # Half a minute, well below what network gateways allow an idle connection: the lock's is idle for long.
        "keepalives_idle": "30",
        **_with_schema(url).connect_kwargs(),
        "application_name": f"db migrate on {socket.gethostname()}"[:63],
    }
    try:
        connection: Connection = psycopg.connect(**parameters, autocommit=True)  # type: ignore[arg-type]
    except psycopg.Error as error:
        # Not chained: the driver's error object holds the password (its pgconn).
        raise DatabaseUnavailable(
            f"Cannot connect to {url.masked()}: {' '.join(str(error).split())}", solutions=_advice(url)
        ) from None
    try:
        check_version(connection.info.server_version)
        _keep_session(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _direct_url() -> DatabaseURL:
    """Find the way past a pooler, on which a lock and session settings would be somebody else's the next moment."""
    settings = get_settings()
    url = settings.direct_database_url
    if url is None:
        raise Refused(
            f"DATABASE_URL leads to a pooler ({provider_of(settings.database_url).name}), and migrations need the "
            "server itself: they hold a lock for as long as their session lasts.",
            solutions=["Set DIRECT_URL to the provider's direct connection string, beside DATABASE_URL."],
        )
    return url


def _with_schema(url: DatabaseURL) -> DatabaseURL:
    """Honour the URL's schema= as the application's connections do."""
    schema = url.hints.get("schema")
    if not schema:
        return url
    options = startup_options({"search_path": identifier(schema)}, url.params.get("options"))
    return url.with_params(options=options)


@contextmanager
def session() -> Iterator[Connection]:
    """Open a connection as `connect` does, for one block; what the driver raises in it leaves as an error of ours."""
    with connect() as connection:
        try:
            yield connection
        except psycopg.Error as error:
            # 57P01 and its like end a session; without any SQLSTATE the driver found the connection gone.
            if error.sqlstate is None or error.sqlstate.startswith("57P"):
                reason = " ".join(str(error).split())
                raise DatabaseUnavailable(f"The connection to the database was lost: {reason}") from None
            raise MigrationError(f"The server refused: {error.diag.message_primary}", sqlstate=error.sqlstate) from None


def check_version(number: int) -> None:
    """Refuse a server older than this project supports; `number` as in server_version_num, such as 160004."""
    major, minor = divmod(number, 10000)
    if major < MINIMUM_MAJOR_VERSION:
        # Before 10 the second number belonged to the major version: 90624 is 9.6.24.
        found = f"{major}.{minor}" if major >= 10 else f"{major}.{minor // 100}.{minor % 100}"
        raise Refused(
            f"The server is PostgreSQL {found}; these migrations need {MINIMUM_MAJOR_VERSION} or newer.",
            solutions=["Upgrade the server, or point DATABASE_URL at a newer one."],
        )


def _advice(url: DatabaseURL) -> list[str]:
    if url.is_local:
        return ["Start that database, or unset DATABASE_URL and run `make dev`, which brings one."]
    return [
        "Compare DATABASE_URL (user, password, host, port, database) with the provider's connection string.",
        "Check that the provider lets this machine in: allow-list, private network.",
    ]


def _keep_session(connection: Connection) -> None:
    """Let the session outlast a long migration, and end soon after its client is killed.

    Without client_connection_check_interval the server notices a dead client only when the statement under way has
    ended, and holds its locks until then (manual 19.3.2).
    """
    connection.execute("SELECT set_config('idle_session_timeout', '0', false)")
    with suppress(psycopg.errors.InvalidParameterValue):  # a server on Windows cannot watch its sockets
        connection.execute("SELECT set_config('client_connection_check_interval', '2s', false)")

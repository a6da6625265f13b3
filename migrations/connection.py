"""The migrations' own connections: direct, named, and outlived by nothing.

They are opened here rather than taken from the pool, because a migration holds session state (an advisory lock) and
may run for minutes.
"""

import logging
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import fetch_many
from psycopg.pq import TransactionStatus

from shared.db.failures import connect_error_from, is_lost
from shared.db.providers import provider_of
from shared.db.session import KEEPALIVES, SERVER_KEEPALIVES, identifier, startup_options
from shared.db.url import DatabaseURL
from shared.errors import (
    CannotConnectNow,
    ConnectionFailure,
    DatabaseUnavailable,
    DirectConnectionRequired,
    MigrationError,
    Refused,
    TooManyConnections,
    UnsupportedStartupParameter,
)
from shared.settings import get_settings

CONNECT_TIMEOUT = 15  # seconds; a database that scales to zero may have to wake up first
# Of these another attempt may well succeed, and one failed build is a worse answer than a few seconds.
_PASSING = (TooManyConnections, CannotConnectNow, ConnectionFailure)
_PAUSE = 0.5  # seconds between attempts, at most
_CANCEL_TIMEOUT = 5.0  # seconds, as long as psycopg waits
MINIMUM_MAJOR_VERSION = 16
# Without it the server notices a dead client only when the statement under way has ended, and holds its locks until
# then (manual 19.3.2).
_WATCH = "client_connection_check_interval"

Connection = psycopg.Connection[tuple[object, ...]]
T = TypeVar("T")

# Where a session ends in a transaction the driver warns that it cannot roll back, and the error itself tells enough.
logging.getLogger("psycopg").setLevel(logging.ERROR)


class _Connection(psycopg.Connection[tuple[object, ...]]):
    """A psycopg connection that can be rolled back after every Ctrl-C."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait as psycopg does, which cancels the statement at an interrupt, and reads on to the statement's end.

        Where the interrupt ended the generator that reads, psycopg reads nothing, and another command would be "already
        in progress" for ever.
        """
        try:
            return super().wait(gen, *args, **kwargs)
        except KeyboardInterrupt:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._read_to_the_end()
            raise

    def _read_to_the_end(self) -> None:
        try:
            super().wait(fetch_many(self.pgconn), timeout=_CANCEL_TIMEOUT)
        except psycopg.Error:
            self.pgconn.finish()


def connect(purpose: str = "db migrate") -> Connection:
    """Open a connection to the server itself, in autocommit mode, that shows in pg_stat_activity who migrates.

    A server that is full or starting, and a connection that is cut while it is made, are tried again for as long as
    CONNECT_TIMEOUT. Raises DatabaseUnavailable, ConfigurationError; DirectConnectionRequired where only a pooler is
    known, Refused where the server is too old.
    """
    url = direct_url()
    settings = _session_settings()
    through_pooler = provider_of(url).pooler != "none"  # one that keeps our session, but takes no options
    patience = time.monotonic() + CONNECT_TIMEOUT
    try:
        while True:
            try:
                connection = _open(url, purpose, {} if through_pooler else settings)
                break
            except psycopg.Error as error:
                passing = isinstance(connect_error_from(error.sqlstate, str(error)), _PASSING)
                if _WATCH in str(error) and _WATCH in settings:
                    del settings[_WATCH]  # a server on Windows cannot watch its sockets, and refuses to start it
                elif passing and time.monotonic() < patience:
                    time.sleep(random.uniform(0.1, _PAUSE))  # noqa: S311
                else:
                    raise
    except psycopg.Error as error:
        # Not chained: the driver's error object holds the password (its pgconn).
        raise _not_connected(url, error) from None
    try:
        check_version(connection.info.server_version)
        if through_pooler:
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    except BaseException:
        connection.close()
        raise
    return connection


def direct_url() -> DatabaseURL:
    """Find the way past a pooler, on which a lock and session settings would be somebody else's the next moment."""
    settings = get_settings()
    url = settings.direct_database_url
    if url is None:
        raise DirectConnectionRequired(
            f"DATABASE_URL leads to a pooler ({provider_of(settings.database_url).name}), and migrations need the "
            "server itself: they hold a lock for as long as their session lasts.",
            solutions=["Set DIRECT_URL to the provider's direct connection string, beside DATABASE_URL."],
        )
    return url


def check_direct(connection: Connection, backend_pid: int) -> None:
    """Refuse a pooler that no address tells: `backend_pid` is the server's, the connection's own who answered it.

    One that is known by its address to keep our session may stay.
    """
    url = direct_url()
    if backend_pid != connection.info.backend_pid and provider_of(url).pooler == "none":
        raise _pooler_found(url)


def lift_transaction_timeout(connection: Connection) -> None:
    """Let transactions last; PostgreSQL 16 does not know the setting and would not start a session with it."""
    if connection.info.server_version >= 170000:
        connection.execute("SELECT set_config('transaction_timeout', '0', false)")


def _session_settings() -> dict[str, str]:
    """Let the session outlast a long migration, and end soon after its client is killed."""
    return {
        "statement_timeout": "0",
        "idle_session_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "lock_timeout": f"{get_settings().migration_lock_timeout * 1000:.0f}",
        _WATCH: "2s",
        **SERVER_KEEPALIVES,
    }


def _open(url: DatabaseURL, purpose: str, settings: dict[str, str]) -> Connection:
    schema = url.hints.get("schema")
    asked = startup_options({"search_path": identifier(schema)} if schema else {}, url.params.get("options"))
    # Ours come last, where they win: the limits that a URL asks for are those of requests.
    options = f"{asked} {startup_options(settings)}".strip()
    parameters = {
        "connect_timeout": str(CONNECT_TIMEOUT),
        # Well below what network gateways allow an idle connection: the lock's is idle for long.
        **KEEPALIVES,
        **url.connect_kwargs(),
        "application_name": _application_name(purpose),
        **({"options": options} if options else {}),
    }
    return _Connection.connect(**parameters, autocommit=True)  # type: ignore[arg-type]


def _application_name(purpose: str) -> str:
    """Say who migrates, from where and for which deployment; the server keeps 63 bytes of printable ASCII."""
    environ = os.environ
    run = environ.get("GITHUB_RUN_ID")
    deployment = (
        environ.get("VERCEL_DEPLOYMENT_ID")
        or environ.get("VERCEL_URL")
        or (f"GitHub run {run}" if run else None)
        or (get_settings().commit or "")[:12]
    )
    name = f"{purpose} on {socket.gethostname()}" + (f" ({deployment})" if deployment else "")
    return re.sub(r"[^ -~]", "?", name)[:63]


def _not_connected(url: DatabaseURL, error: psycopg.Error) -> DatabaseUnavailable | DirectConnectionRequired:
    reason = " ".join(str(error).split())
    if isinstance(connect_error_from(error.sqlstate, reason), UnsupportedStartupParameter):
        return _pooler_found(url)
    return DatabaseUnavailable(f"Cannot connect to {url.masked()}: {reason}", solutions=_advice(url))


def _pooler_found(url: DatabaseURL) -> DirectConnectionRequired:
    return DirectConnectionRequired(
        f"A pooler answers at {url.host}:{url.port}, and migrations need the server itself: they hold a lock for as "
        "long as their session lasts.",
        solutions=["Set DIRECT_URL to the provider's direct connection string, beside DATABASE_URL."],
    )


@contextmanager
def session(purpose: str = "db migrate") -> Iterator[Connection]:
    """Open a connection as `connect` does, for one block; what the driver raises in it leaves as an error of ours."""
    with connect(purpose) as connection:
        try:
            yield connection
        except psycopg.Error as error:
            from shared.db.diagnosis import diagnose  # only once something has failed

            if is_lost(error.sqlstate):
                reason = " ".join(str(error).split())
                raise DatabaseUnavailable(
                    f"The connection to the database was lost: {reason}", sqlstate=error.sqlstate
                ) from None
            refused = f"The server refused: {error.diag.message_primary}"
            solutions = diagnose(error, direct_url()).solutions
            raise MigrationError(refused, solutions=solutions, sqlstate=error.sqlstate) from None


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

"""PostgreSQL for the tests: a running server, its databases, and who is still connected to them."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from ops.postgres_server import PostgresServer
from tests.servers import binaries
from tests.servers.pgbouncer import PgBouncer
from tests.servers.process import free_port

ADMIN, ADMIN_PASSWORD = "postgres", "admin-secret"
APP, APP_PASSWORD = "app", "p%@/:?#&+ é"
"""The ordinary role that owns the test databases. Its password needs encoding in a URL, so every test does that."""

SETTINGS = {
    "max_connections": "100",
    # A test database need not survive a crash of the machine.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
WAIT = 5.0  # seconds in which closed connections are expected to be gone, and a reload to be done


class Postgres:
    """A running server: `port`, `major`, URLs, databases. `server` starts and stops it, `admin()` is its superuser."""

    def __init__(self, major: int, directory: Path, settings: Mapping[str, str]) -> None:
        program = binaries.postgres(major)
        self.major = major
        self.port = free_port()
        self.server = PostgresServer(
            program.directory,
            directory / "data",
            port=self.port,
            user=ADMIN,
            password=ADMIN_PASSWORD,
            settings={**SETTINGS, **settings},
            environ=program.environ,
        )
        self._admin: psycopg.Connection[Any] | None = None

    def url(self, database: str) -> str:
        """Return the URL of `database` for the ordinary role."""
        return f"postgresql://{APP}:{quote(APP_PASSWORD, safe='')}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def admin_url(self, database: str = "postgres") -> str:
        """Return the URL of `database` for the superuser."""
        return self.server.url(database)

    def admin(self) -> psycopg.Connection[Any]:
        """Return the fixtures' own connection (superuser, autocommit), a new one after a restart of the server."""
        if self._admin is not None and not self._admin.closed:
            try:
                self._admin.execute("SELECT")
            except psycopg.OperationalError:
                self._admin.close()
        if self._admin is None or self._admin.closed:
            self._admin = psycopg.connect(self.admin_url(), autocommit=True, application_name="test fixtures")
        return self._admin

    def close(self) -> None:
        """Stop the server."""
        if self._admin is not None:
            self._admin.close()
        self.server.stop("immediate")

    @contextmanager
    def database(self, template: str = "template0", poolers: list[PgBouncer] | None = None) -> Iterator[str]:
        """Create a database of the ordinary role, yield its name, drop it.

        Raises AssertionError when somebody is still connected to it, itself or through one of `poolers`.
        """
        name = f"test_{secrets.token_hex(6)}"
        self.create_database(name, template)
        try:
            yield name
            left = [client for pooler in poolers or [] for client in pooler.disconnect(name)]
            left += self._connections_left(name, poolers or [])
            assert not left, "the test left connections behind:\n" + "\n".join(left)
        finally:
            self.admin().execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_database(self, name: str, template: str = "template0") -> None:
        """Create a database that the ordinary role owns."""
        create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
        self.admin().execute(create.format(*map(sql.Identifier, (name, APP, template))))

    def reload(self) -> None:
        """Have the server read its configuration files (postgresql.auto.conf, pg_hba.conf, certificates) again."""
        asked = self.admin().execute("SELECT clock_timestamp()").fetchone()
        self.admin().execute("SELECT pg_reload_conf()")

        def is_loaded() -> bool:
            # A new connection sees what the postmaster had when it was forked.
            with psycopg.connect(self.admin_url()) as connection:
                return connection.execute("SELECT pg_conf_load_time() > %s", asked).fetchone() == (True,)

        _wait_for(is_loaded, "the server did not reload its configuration")

    def _connections_left(self, database: str, poolers: list[PgBouncer]) -> list[str]:
        """Return who is connected, once those who have just closed are gone, and the poolers' own connections."""
        query = """
            SELECT concat_ws(' | ', 'pid ' || pid, usename, application_name, state, query)
            FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'
        """

        def left() -> list[str]:
            for pooler in poolers:  # a server connection may come back to the pooler after it was told to close all
                pooler.kill(database)
            return [row[0] for row in self.admin().execute(query, [database])]

        with suppress(TimeoutError):
            _wait_for(lambda: not left(), "somebody is left")
        return left()


@contextmanager
def running(
    major: int,
    directory: Path,
    settings: Mapping[str, str] | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Iterator[Postgres]:
    """Create a server in `directory`, `prepare` its data directory, and run it, with the role `app`."""
    postgres = Postgres(major, directory, settings or {})
    postgres.server.init()
    if prepare is not None:
        prepare(postgres.server.data_dir)
    postgres.server.start(die_with_parent=True)
    try:
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(APP), sql.Literal(APP_PASSWORD))
        postgres.admin().execute(create)
        yield postgres
    finally:
        postgres.close()


@contextmanager
def standby(primary: Postgres, directory: Path) -> Iterator[Postgres]:
    """Run a hot standby of `primary`; `SELECT pg_promote()` on its `admin()` makes it one itself."""
    # It comes back at once to a primary that was restarted, where a standby waits for five seconds.
    postgres = Postgres(primary.major, directory, {"wal_retrieve_retry_interval": "100ms"})
    program = binaries.postgres(primary.major)
    command = [str(program.directory / "pg_basebackup"), f"--dbname={primary.admin_url()}", "--write-recovery-conf"]
    command += [f"--pgdata={postgres.server.data_dir}", "--checkpoint=fast"]
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, env={**os.environ, **program.environ}, check=True, capture_output=True)
    postgres.server.start(die_with_parent=True)
    try:
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        _wait_for(lambda: primary.admin().execute(streaming).fetchone() == (1,), "the standby does not follow")
        yield postgres
    finally:
        postgres.close()


def _wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for what PostgreSQL has no event for. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.005)

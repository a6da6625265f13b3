"""PgBouncer for the tests, in front of a PostgreSQL on 127.0.0.1."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.servers import binaries
from tests.servers.process import free_port, start, stop, through

CONSOLE = "pgbouncer"  # the name of the admin console's database, and here of its user
CONSOLE_PASSWORD = "console-secret"
WAIT = 5.0  # seconds in which clients that have just closed are expected to be gone

SETTINGS = {
    "pool_mode": "transaction",
    "default_pool_size": "3",  # small, so that clients really share
    "max_client_conn": "200",
}


class PgBouncer:
    """A running PgBouncer: `port`, `version` (as in (1, 18, 0)), URLs, its admin console."""

    def __init__(
        self, flavour: str, directory: Path, server_port: int, users: Mapping[str, str], settings: Mapping[str, str]
    ) -> None:
        program = binaries.pgbouncer(flavour)
        self.version = binaries.pgbouncer_version(program)
        self.port = free_port()
        self.server_port = server_port
        self.log = directory / "pgbouncer.log"
        self._command = [str(program.directory / "pgbouncer"), str(directory / "pgbouncer.ini")]
        self._environ = program.environ
        self._write(directory, {**users, CONSOLE: CONSOLE_PASSWORD}, {**SETTINGS, **settings})
        self.start()

    def start(self) -> None:
        """Start it (again, on the same port) and return when it listens."""
        self._process = start(self._command, self.port, self.log, self._environ)

    def stop(self) -> None:
        """Kill it, with all its connections."""
        stop(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, url: str) -> str:
        """Return the database URL of its server with our port: the way through the pooler."""
        return through(url, self.port)

    def console(self, command: str) -> list[dict[str, Any]]:
        """Run a command of the admin console (SHOW POOLS, PAUSE, KILL name, ...) and return its rows."""
        url = f"postgresql://{CONSOLE}:{CONSOLE_PASSWORD}@127.0.0.1:{self.port}/{CONSOLE}"
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(command.encode())
            return cursor.fetchall() if cursor.description else []

    def disconnect(self, database: str) -> list[str]:
        """Close all connections to `database`; return the clients that still had one."""
        deadline = time.monotonic() + WAIT
        while True:
            clients = [row for row in self.console("SHOW CLIENTS") if row["database"] == database]
            if not clients or time.monotonic() > deadline:
                break
            time.sleep(0.005)  # a client's end offers no event to wait for
        self.kill(database)
        return [f"PgBouncer on port {self.port}: {row['user']} on port {row['port']}" for row in clients]

    def kill(self, database: str) -> None:
        """Close its idle connections to `database`, so that it can be dropped; new clients may come."""
        # SHOW DATABASES would not do: it forgets a database that is known by `*` only before its connections are gone.
        if any(row["database"] == database for row in self.console("SHOW SERVERS")):
            self.console(f"KILL {database}")
            self.console(f"RESUME {database}")

    def _write(self, directory: Path, users: Mapping[str, str], settings: Mapping[str, str]) -> None:
        quoted = [(user.replace('"', '""'), password.replace('"', '""')) for user, password in users.items()]
        user_list = directory / "userlist.txt"
        user_list.write_text("".join(f'"{user}" "{password}"\n' for user, password in quoted), encoding="utf-8")
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(user_list),
            "admin_users": CONSOLE,
            **settings,
        }
        text = f"[databases]\n* = host=127.0.0.1 port={self.server_port}\n[pgbouncer]\n"
        text += "".join(f"{name} = {value}\n" for name, value in lines.items())
        (directory / "pgbouncer.ini").write_text(text, encoding="utf-8")


@contextmanager
def running(
    flavour: str,
    directory: Path,
    server_port: int,
    users: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> Iterator[PgBouncer]:
    """Run a PgBouncer (one of binaries.PGBOUNCERS) whose clients are `users` (name to password)."""
    directory.mkdir(parents=True, exist_ok=True)
    pgbouncer = PgBouncer(flavour, directory, server_port, users, settings or {})
    try:
        yield pgbouncer
    finally:
        pgbouncer.stop()

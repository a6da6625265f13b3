"""What the provocations share: the register of them, the servers that they need, and one attempt by one client."""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import trustme

from shared.db.url import DatabaseURL, Host
from tests.servers import binaries, postgres, process, tls
from tests.servers.pgbouncer import PgBouncer
from tests.servers.pgbouncer import running as run_pgbouncer
from tests.servers.postgres import APP, Postgres
from tests.shared.db.clients import CLIENTS, Client, Session
from tests.shared.db.watching import until

CANARY = "canary%/@42"  # a password that no diagnosis may show
ROLE_PASSWORD = "role-password"
ROLES = {
    "guest": "LOGIN",
    "limited": "LOGIN CONNECTION LIMIT 1",
    "reader": "LOGIN",
    "rejected": "LOGIN",
    "retired": "NOLOGIN",
    "tlsonly": "LOGIN",
    "unlisted": "LOGIN",
}
_HBA = """
host all rejected 127.0.0.1/32 reject
hostssl all tlsonly 127.0.0.1/32 scram-sha-256
host all postgres,app,guest,limited,retired,reader 127.0.0.1/32 scram-sha-256
host replication postgres 127.0.0.1/32 scram-sha-256
"""
ROOM = 12  # max_connections of the strict server, 3 of them for superusers


@dataclass(frozen=True)
class Case:
    """One way to make one code: `provoke` must raise. `vaguely` are the codes allowed before the wire was asked."""

    code: str
    provoke: "Callable[[Stage, Attempt], None]"
    only: tuple[str, ...] = ()
    vaguely: tuple[str, ...] = ()
    is_slow: bool = False

    @property
    def clients(self) -> list[Client]:
        """Give the clients that can be in this trouble."""
        return [client for client in CLIENTS if not self.only or client.name in self.only]


CASES: list[Case] = []
LIBPQ = ("psycopg", "sqlalchemy+psycopg", "ours+psycopg")
STOCK_PG8000 = ("pg8000", "sqlalchemy+pg8000")
OURS = ("ours+psycopg", "ours+pg8000")


def provokes(
    code: str, *, only: tuple[str, ...] = (), vaguely: tuple[str, ...] = (), is_slow: bool = False
) -> "Callable[[Callable[[Stage, Attempt], None]], Callable[[Stage, Attempt], None]]":
    """Register a function that makes an error of this code, for the clients `only`, if given.

    A slow one waits for a time limit: its clients run at the same time.
    """

    def register(function: "Callable[[Stage, Attempt], None]") -> "Callable[[Stage, Attempt], None]":
        CASES.append(Case(code, function, only, vaguely, is_slow))
        return function

    return register


@dataclass
class Attempt:
    """What one client does in one case; `url` is where it connected last, with the names that a diagnosis has."""

    client: Client
    url: DatabaseURL | None = None
    _close: ExitStack = field(default_factory=ExitStack)

    def connect(self, url: DatabaseURL) -> Session:
        """Connect; the connection is closed with the attempt."""
        self.url = url
        session = self.client.connect(url)
        self._close.callback(session.close)
        return session

    def keep(self, resource: Any) -> Any:
        """Enter a context that ends with the attempt."""
        return self._close.enter_context(resource)

    def defer(self, function: Callable[[], object]) -> None:
        """Call a function when the attempt ends."""
        self._close.callback(function)

    def close(self) -> None:
        self._close.close()


class Stage:
    """The servers of all provocations, each started when it is first asked for."""

    def __init__(self, directory: Path, plain: Postgres, certificates: tls.Certificates, stack: ExitStack) -> None:
        self.directory = directory
        self.plain = plain  # without TLS
        self.certificates = certificates
        self._stack = stack

    @cached_property
    def strict(self) -> Postgres:
        """Give a server with TLS, little room, and roles that may do little."""
        settings = {**tls.SETTINGS, "max_connections": str(ROOM)}
        server = self._run("strict", settings, self._prepare_strict)
        admin = server.admin()
        for role, options in ROLES.items():
            admin.execute(f"CREATE ROLE {role} {options} PASSWORD '{ROLE_PASSWORD}'".encode())
        admin.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        admin.execute("GRANT SET ON PARAMETER deadlock_timeout TO app")
        server.create_database("app")
        with psycopg.connect(server.url("app"), autocommit=True) as connection:
            connection.execute("CREATE TABLE account AS SELECT id, 0 AS balance FROM generate_series(1, 2) AS id")
        return server

    def _prepare_strict(self, data_dir: Path) -> None:
        tls._put(self.certificates.good, data_dir)
        (data_dir / "pg_hba.conf").write_text(_HBA)

    def _run(self, name: str, settings: dict[str, str], prepare: Callable[[Path], None] | None = None) -> Postgres:
        running = postgres.running(binaries.MAJORS[-1], self.directory / name, settings, prepare)
        return self._stack.enter_context(running)

    @contextmanager
    def showing(self, certificate: tls.Certificate) -> Iterator[None]:
        """Have the strict server show another certificate."""
        server = tls.TLSPostgres(self.strict, self.certificates)
        server.show(certificate)
        yield
        server.show(self.certificates.good)

    @cached_property
    def stopping(self) -> Postgres:
        """Give a server in a smart shutdown, which waits for the fixtures' own session to end."""
        server = self._run("stopping", {})
        server.admin()
        pid = server.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        return server

    @cached_property
    def standby(self) -> Postgres:
        """Give a hot standby of `strict`, which ends whatever keeps it from replaying."""
        self.strict.admin().execute("CHECKPOINT")
        standby = self._stack.enter_context(postgres.standby(self.strict, self.directory / "standby"))
        standby.admin().execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        standby.reload()
        return standby

    @cached_property
    def self_signed(self) -> tls.Certificate:
        """Give a certificate that vouches for itself."""
        authority = trustme.CA()
        certificate = tls.Certificate(self.directory / "self.crt", self.directory / "self.key")
        authority.cert_pem.write_to_path(str(certificate.certificate))
        authority.private_key_pem.write_to_path(str(certificate.key))
        return certificate

    def url(self, user: str = APP, database: str = "app", **params: str) -> DatabaseURL:
        """Give a URL of the strict server."""
        return self.at(self.strict, user, database, **params)

    def at(self, server: Postgres, user: str = APP, database: str = "app", **params: str) -> DatabaseURL:
        """Give a URL of a server."""
        url = DatabaseURL.parse(server.url(database))
        if user != APP:
            url = replace(url, user=user, password=ROLE_PASSWORD)
        return url.with_params(**params)

    def pooler(self, name: str, flavour: str = binaries.PGBOUNCERS[0], port: int = 0, **settings: str) -> PgBouncer:
        """Give a PgBouncer of this name before `plain`, or before the server on `port`."""
        users = {postgres.APP: postgres.APP_PASSWORD, postgres.ADMIN: postgres.ADMIN_PASSWORD}
        poolers: dict[str, PgBouncer] = self.__dict__.setdefault("_poolers", {})
        with _lock:
            if name not in poolers:
                target = port or self.plain.port
                running = run_pgbouncer(flavour, self.directory / f"pooler-{name}", target, users, settings)
                poolers[name] = self._stack.enter_context(running)
            return poolers[name]

    def through(self, pooler: PgBouncer, database: str = "postgres", **params: str) -> DatabaseURL:
        """Give the URL of a database of `plain` through a pooler."""
        return self.at_port(DatabaseURL.parse(self.plain.url(database)), pooler.port, **params)

    @staticmethod
    def at_port(url: DatabaseURL, port: int, **params: str) -> DatabaseURL:
        """Give a URL with another port on this machine."""
        return replace(url, hosts=(Host("127.0.0.1", port),)).with_params(**params)

    @cached_property
    def _backup(self) -> Path:
        """Make a base backup of the strict server that lacks the WAL of its end, and has no primary to get it from."""
        directory = self.directory / "backup"
        admin = self.strict.admin()
        admin.execute("SELECT pg_backup_start('test', fast => true)")
        shutil.copytree(self.strict.server.data_dir, directory, ignore=shutil.ignore_patterns("postmaster.*", "*.log"))
        row = admin.execute("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)").fetchone()
        assert row is not None
        (directory / "backup_label").write_text(row[0])
        (directory / "standby.signal").touch()
        return directory

    @contextmanager
    def recovering(self, **settings: str) -> Iterator[int]:
        """Run a standby that does not come to take connections; yield its port once it says more than "starting"."""
        source = self._backup
        program = binaries.postgres(binaries.MAJORS[-1])
        port = process.free_port()
        settings = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [str(program.directory / "postgres"), "-D", str(source), *options]
        running = process.start(command, port, source / "server.log", program.environ)
        url = self.at_port(self.url(), port)
        try:
            if "restore_command" not in settings:
                until(lambda: "starting up" not in _refusal(url))
            yield port
        finally:
            running.send_signal(signal.SIGQUIT)  # not kill -9, which leaves its children, and their shared memory
            running.wait()


_lock = threading.Lock()


def _refusal(url: DatabaseURL) -> str:
    try:
        psycopg.connect(**url.connect_kwargs()).close()  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def attempts(stage: Stage, case: Case, judge: Callable[[Attempt, BaseException], None]) -> None:
    """Have every client of a slow case provoke it at the same time, and judge what each got."""

    def one(client: Client) -> None:
        error, attempt = outcome(stage, case, client)
        try:
            judge(attempt, error)
        finally:
            attempt.close()

    with ThreadPoolExecutor(len(CLIENTS)) as executor:
        for future in [executor.submit(one, client) for client in case.clients]:
            future.result()


def outcome(stage: Stage, case: Case, client: Client) -> tuple[BaseException, Attempt]:
    """Have one client provoke a case; return what was raised, with the attempt still open."""
    attempt = Attempt(client)
    try:
        case.provoke(stage, attempt)
    except Exception as error:
        return error, attempt
    attempt.close()
    raise AssertionError(f"{case.provoke.__name__} raised nothing with {client.name}")

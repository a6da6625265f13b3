"""Fixtures of all tests: real servers, fresh databases, a clean environment, and nothing left behind.

Servers start when the first test asks for them and live as long as the test process; under pytest-xdist each worker
has its own. They end with it, also after kill -9.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import psutil
import pytest

from migrations import runner
from ops import aws_sdk
from shared import db
from shared.db.testing import rolled_back as in_one_transaction
from shared.settings import VARIABLES, reset_settings
from tests import canary
from tests.canary import pytest_configure, pytest_runtest_makereport  # noqa: F401 - hooks
from tests.deploy.tools import Missing
from tests.servers import aws as clouds
from tests.servers import binaries, tls
from tests.servers import pgbouncer as pgbouncers
from tests.servers import postgres as servers
from tests.servers.aws import Aws
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy

Use = Callable[..., None]

# What settings read, what platforms set, and what libpq takes from the environment.
CLEARED_PREFIXES = ("DATABASE_", "POSTGRES_", "MIGRATION_", "VERCEL", "AWS_", "PG")
CLEARED = {variable.name for variable in VARIABLES} | {"DIRECT_URL"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs an AWS of its own beside the deployments' tests, which bring one."""
    for item in items:
        if "in_aws" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.deploy)


# -- nothing left behind ----------------------------------------------------------------------------


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the environment variables that would change what the code under test does."""
    for name in list(os.environ):
        if name in CLEARED or name.startswith(CLEARED_PREFIXES):
            monkeypatch.delenv(name)
    reset_settings()


@pytest.fixture(autouse=True, scope="session")
def clean_session() -> Iterator[None]:
    """Give the session's own fixtures a clean environment, and the processes they start a Ctrl-C that is heard."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's job in the background, and all that it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as monkeypatch:
        clear_environment(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def clean_environment(clean_session: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin each test with no settings, and end it with no pool."""
    clear_environment(monkeypatch)
    environ = dict(os.environ)
    formatters = [(handler, handler.formatter) for handler in logging.getLogger().handlers]
    yield
    for handler, formatter in formatters:  # an application that answers sets them
        handler.setFormatter(formatter)
    db.close_db(grace=0)
    reset_settings()
    # Commands that run in this process set variables for those that they start.
    for name in os.environ.keys() - environ.keys():
        del os.environ[name]


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """Return the directory of this process's servers; remove those of processes that are gone."""
    parent, pid = binaries.CACHE / "run", os.getpid()
    for directory in parent.glob("*"):
        if directory.name == str(pid) or (directory.name.isdigit() and not psutil.pid_exists(int(directory.name))):
            shutil.rmtree(directory, ignore_errors=True)
    directory = parent / str(pid)
    directory.mkdir(parents=True)
    yield directory
    try:
        canary.check_files(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# -- PostgreSQL -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_of(run_directory: Path) -> Iterator[Callable[[int], Postgres]]:
    """Give the running test server of a major version; it is started when it is first asked for."""
    started: dict[int, Postgres] = {}
    with ExitStack() as stack:

        def get(major: int) -> Postgres:
            if major not in started:
                started[major] = stack.enter_context(servers.running(major, run_directory / f"postgres-{major}"))
            return started[major]

        yield get


@pytest.fixture(scope="session")
def postgres(postgres_of: Callable[[int], Postgres]) -> Postgres:
    """Return the running test server, the newest major version. It is shared: do not stop or reconfigure it."""
    return postgres_of(binaries.MAJORS[-1])


@pytest.fixture(scope="session", params=binaries.MAJORS)
def any_postgres(request: pytest.FixtureRequest, postgres_of: Callable[[int], Postgres]) -> Postgres:
    """Return a running test server of each major version in turn."""
    major: int = request.param
    return postgres_of(major)


@pytest.fixture
def own_postgres(run_directory: Path, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """Return a server that only this test has, to stop, restart and reconfigure (0.8 s)."""
    with servers.running(binaries.MAJORS[-1], run_directory / f"own-{abs(hash(request.node.nodeid))}") as postgres:
        yield postgres


@pytest.fixture
def standby(own_postgres: Postgres, run_directory: Path) -> Iterator[Postgres]:
    """Return a hot standby of `own_postgres`, to read from and to promote."""
    with servers.standby(own_postgres, own_postgres.server.data_dir.with_name("standby")) as postgres:
        yield postgres


@pytest.fixture
def database(postgres: Postgres, poolers: list[PgBouncer]) -> Iterator[str]:
    """Return the URL of a fresh, empty database; no connection to it may be left at the end of the test."""
    with postgres.database(poolers=poolers) as name:
        yield postgres.url(name)
        db.close_db(grace=0)


@pytest.fixture
def any_database(any_postgres: Postgres) -> Iterator[str]:
    """Return the URL of a fresh, empty database of each major version in turn."""
    with any_postgres.database() as name:
        yield any_postgres.url(name)
        db.close_db(grace=0)


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """Return the name of a database to which all migrations were applied, to make others from."""
    name = "migrated"
    postgres.create_database(name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DATABASE_URL", postgres.url(name))
        monkeypatch.setenv("APP_ENV", "test")
        reset_settings()
        runner.deploy(report=lambda _: None)
    reset_settings()
    return name


@pytest.fixture
def migrated_database(postgres: Postgres, migrated_template: str, poolers: list[PgBouncer]) -> Iterator[str]:
    """Return the URL of a fresh database with all migrations and essential data."""
    with postgres.database(template=migrated_template, poolers=poolers) as name:
        yield postgres.url(name)
        db.close_db(grace=0)


@pytest.fixture(scope="session")
def endpoint_database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """Return the URL of the migrated database that all tests with `rolled_back` share."""
    with postgres.database(template=migrated_template) as name:
        yield postgres.url(name)


@pytest.fixture(params=["psycopg", "pg8000"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Literal["psycopg", "pg8000"]:
    """Run the test with each driver."""
    monkeypatch.setenv("DATABASE_DRIVER", request.param)
    driver: Literal["psycopg", "pg8000"] = request.param
    return driver


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Set environment variables, and let settings and pool begin anew: use(DATABASE_URL=...)."""

    def use(**variables: str) -> None:
        db.close_db(grace=0)
        monkeypatch.setenv("APP_ENV", "test")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        reset_settings()

    return use


@pytest.fixture
def rolled_back(endpoint_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test call endpoints and `shared.db` on a migrated database, and undo whatever they write."""
    monkeypatch.setenv("DATABASE_URL", endpoint_database)
    reset_settings()
    with in_one_transaction():
        yield


@pytest.fixture(scope="session")
def certificates(run_directory: Path) -> tls.Certificates:
    """Return server certificates, good and bad, and the authority that made them."""
    return tls.Certificates(run_directory / "certificates")


@pytest.fixture(scope="session")
def tls_server(run_directory: Path, certificates: tls.Certificates) -> Iterator[tls.TLSPostgres]:
    """Run the server of `tls_postgres`."""
    with tls.running(binaries.MAJORS[-1], run_directory / "postgres-tls", certificates) as server:
        yield server


@pytest.fixture
def tls_postgres(tls_server: tls.TLSPostgres) -> Iterator[tls.TLSPostgres]:
    """Return a server with TLS, showing its good certificate until the test says otherwise."""
    yield tls_server
    tls_server.show(tls_server.certificates.good)


# -- PgBouncer --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def poolers() -> list[PgBouncer]:
    """Return the PgBouncers that run now: they are asked, too, whether a test left connections behind."""
    return []


@pytest.fixture(scope="session")
def pgbouncer_of(
    run_directory: Path, postgres: Postgres, poolers: list[PgBouncer]
) -> Iterator[Callable[..., PgBouncer]]:
    """Give a running PgBouncer before `postgres`: `pgbouncer_of(flavour, pool_mode="session", ...)`.

    The test is skipped with the reason when this machine has none. Who asks for the same gets the same.
    """
    started: dict[tuple[str, ...], PgBouncer] = {}
    users = {servers.APP: servers.APP_PASSWORD, servers.ADMIN: servers.ADMIN_PASSWORD}
    with ExitStack() as stack:

        def get(flavour: str, **settings: str) -> PgBouncer:
            key = (flavour, *(f"{name}={value}" for name, value in sorted(settings.items())))
            if key not in started:
                directory = run_directory / f"pgbouncer-{len(started)}"
                try:
                    pooler = stack.enter_context(pgbouncers.running(flavour, directory, postgres.port, users, settings))
                except binaries.Unavailable as error:
                    pytest.skip(str(error))
                started[key] = pooler
                poolers.append(pooler)
            return started[key]

        yield get
        poolers.clear()


@pytest.fixture(scope="session")
def pgbouncer(pgbouncer_of: Callable[..., PgBouncer]) -> PgBouncer:
    """Return a PgBouncer in transaction mode before `postgres`: the distribution's, in Debian 12 the old 1.18."""
    return pgbouncer_of(binaries.PGBOUNCERS[0])


@pytest.fixture(scope="session", params=binaries.PGBOUNCERS)
def any_pgbouncer(request: pytest.FixtureRequest, pgbouncer_of: Callable[..., PgBouncer]) -> PgBouncer:
    """Return each PgBouncer in turn: the distribution's, and 1.24.1, which knows prepared statements."""
    return pgbouncer_of(request.param)


@pytest.fixture(scope="session")
def tls_pgbouncer(pgbouncer_of: Callable[..., PgBouncer], certificates: tls.Certificates) -> PgBouncer:
    """Return a PgBouncer that demands TLS of its clients."""
    return pgbouncer_of(
        binaries.PGBOUNCERS[0],
        client_tls_sslmode="require",
        client_tls_cert_file=str(certificates.good.certificate),
        client_tls_key_file=str(certificates.good.key),
    )


# -- the wire ---------------------------------------------------------------------------------------


@pytest.fixture
def wire_proxy(postgres: Postgres, database: str) -> Iterator[WireProxy]:
    """Return a proxy in front of `postgres`, which counts flights and makes faults: `wire_proxy.url(database)`."""
    # It asks for `database` to be closed before that looks for connections left behind.
    with WireProxy("127.0.0.1", postgres.port) as proxy:
        yield proxy


# -- AWS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def aws(run_directory: Path) -> Iterator[Aws]:
    """Return an account of AWS."""
    try:
        with clouds.running(run_directory / "moto.log") as account:
            yield account
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def in_aws(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Lead this process's boto3 to the account."""
    aws_sdk.module("boto3")
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return aws

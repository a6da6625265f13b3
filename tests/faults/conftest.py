"""Fixtures of the faults, each of which is tried with each driver; and the table that they make of what was seen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared import db
from tests.faults import activities, table
from tests.faults.fault import Fault, Server
from tests.faults.table import pytest_runtest_logreport, pytest_sessionfinish  # noqa: F401 - hooks
from tests.faults.world import World, prepare
from tests.migrations.conftest import Project
from tests.servers import binaries
from tests.servers import postgres as servers
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.servers.small_disk import small_disk
from tests.shared.db.conftest import Use, use

__all__ = ["use"]

TEMPLATE = "faults"
SERVERS: Mapping[Server, str] = {"shared": "prepared", "own": "fault_server", "small": "small_server"}
SMALL = 160 * 1024 * 1024  # bytes: a new server, two databases, and the least write-ahead log


@pytest.fixture(scope="session")
def fault_project(run_directory: Path) -> Path:
    """Return a copy of the project with one migration more than the databases have."""
    path = run_directory / "fault-project"
    path.mkdir()
    project = Project(path)
    project.versions.add(activities.REVISION, activities.MIGRATION)
    return path


@pytest.fixture(scope="session")
def prepared(postgres: Postgres, migrated_template: str) -> Postgres:
    """Return the shared server, with the template of the faults' databases."""
    postgres.create_database(TEMPLATE, migrated_template)
    prepare(postgres.url(TEMPLATE))
    return postgres


@pytest.fixture(scope="session")
def fault_server(run_directory: Path, prepared: Postgres) -> Iterator[Postgres]:
    """Return a server that only faults use: they restart it, fill it and crash it. What it acknowledged, it keeps.

    With synchronous_commit = on a database's commits wait for a standby, too.
    """
    settings = {"max_connections": "12", "superuser_reserved_connections": "3"}
    settings |= {"synchronous_commit": "local", "synchronous_standby_names": "*"}
    with servers.running(binaries.MAJORS[-1], run_directory / "fault-server", settings) as server:
        copy_template(prepared, server)
        yield server


@pytest.fixture(scope="session")
def small_server(run_directory: Path, prepared: Postgres) -> Iterator[Postgres]:
    """Return a server on a disk of its own, which faults fill. Skips the test where there can be none."""
    settings = {"min_wal_size": "32MB", "max_wal_size": "32MB", "autovacuum": "off"}
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(run_directory / "small-disk", SMALL))
        except binaries.Unavailable as error:
            pytest.skip(str(error))
        server = stack.enter_context(servers.running(binaries.MAJORS[-1], disk, settings))
        copy_template(prepared, server)
        yield server


def copy_template(source: Postgres, target: Postgres) -> None:
    """Make the template of the faults' databases on another server."""
    target.create_database(TEMPLATE)
    program = binaries.postgres(source.major)
    dump = [str(program.directory / "pg_dump"), f"--dbname={source.url(TEMPLATE)}"]
    load = [str(program.directory / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={target.url(TEMPLATE)}"]
    sql = subprocess.run(dump, env=program.environ, capture_output=True, check=True).stdout
    subprocess.run(load, env=program.environ, input=sql, capture_output=True, check=True)


@pytest.fixture
def make_world(
    request: pytest.FixtureRequest,
    driver: str,
    use: Use,
    fault_project: Path,
    tmp_path: Path,
    poolers: list[PgBouncer],
) -> Iterator[Callable[[Fault, str], World]]:
    """Give the world of a cell: `make_world(fault, activity)`."""
    with ExitStack() as stack:

        def make(fault: Fault, activity: str) -> World:
            server: Postgres = request.getfixturevalue(SERVERS[fault.server])
            name = stack.enter_context(server.database(TEMPLATE, poolers=poolers))
            proxy = stack.enter_context(WireProxy("127.0.0.1", server.port, settle=0))
            stack.callback(db.close_db, grace=0)
            database = server.url(name)
            world = World(
                postgres=server,
                database=database,
                url=proxy.url(database),
                proxy=proxy,
                driver=driver,
                project=fault_project,
                folder=tmp_path / "backups",
                stack=stack,
                use=use,
            )
            use(world.url, **{name: value for name, value in world.variables.items() if name != "DATABASE_URL"})
            world.choose(activity)
            return world

        yield make


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[table.Cell], None]:
    """Put what a cell saw into the table."""

    def record(cell: table.Cell) -> None:
        request.node.user_properties.append((table.PROPERTY, cell._asdict()))

    return record

"""One server of a hundred slots, one pooler, and the function that is built once for all storms."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.deploy.conftest import or_skip
from tests.servers import binaries, pgbouncer, postgres
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.storms import fleet as fleets
from tests.storms import function as functions
from tests.storms.fleet import Fleet, Way
from tests.storms.function import Function

INSTANCES = 40
SERVER = {
    "max_connections": str(fleets.LIMITS["max_connections"]),
    "synchronous_commit": "on",  # what it has committed survives an immediate shutdown
}
POOLER = {
    "pool_mode": "transaction",
    "default_pool_size": str(fleets.LIMITS["default_pool_size"]),
    "max_client_conn": "4000",
    "listen_backlog": "1024",  # hundreds connect at the same moment
    "server_login_retry": "1",  # its default would refuse everybody for 15 s after the server came back
}

MakeWay = Callable[[str], AbstractContextManager[Way]]


@pytest.fixture(scope="session")
def server(run_directory: Path) -> Iterator[Postgres]:
    """Return a server to stop and restart."""
    with postgres.running(binaries.MAJORS[-1], run_directory / "storms", SERVER) as running:
        yield running


@pytest.fixture(scope="session")
def pooler(run_directory: Path, server: Postgres) -> Iterator[PgBouncer]:
    """Return the PgBouncer before it."""
    # Not the password, for which it would make thousands of hashes at each login.
    secret = server.admin().execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [postgres.APP]).fetchone()
    assert secret is not None
    users = {postgres.APP: secret[0]}
    try:
        with pgbouncer.running(
            binaries.PGBOUNCERS[0], run_directory / "storms-pooler", server.port, users, POOLER
        ) as running:
            yield running
    except binaries.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def function(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Function:
    """Return the built function with the storms' endpoints."""
    if sys.platform != "linux":
        pytest.skip("The function is built for Linux, and runs there only.")
    # A thousand users have a socket each; the soft limit is often 1024, for programs that use select(2).
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with or_skip():
        return functions.build(server, tmp_path_factory.mktemp("storms"))


@pytest.fixture(scope="session")
def make_way(request: pytest.FixtureRequest, server: Postgres, function: Function) -> MakeWay:
    """Make a database and a way to it: `with make_way("direct") as way`, or "pooler"."""

    @contextmanager
    def make(name: str) -> Iterator[Way]:
        pooler: PgBouncer | None = request.getfixturevalue("pooler") if name == "pooler" else None
        with server.database(template=functions.TEMPLATE, poolers=[pooler] if pooler else []) as database:
            yield Way(server, database, pooler)

    return make


@pytest.fixture(scope="module", params=["direct", "pooler"])
def way(request: pytest.FixtureRequest, make_way: MakeWay) -> Iterator[Way]:
    """Return each way in turn."""
    with make_way(request.param) as way:
        yield way


@pytest.fixture(scope="module")
def fleet(function: Function, way: Way) -> Iterator[Fleet]:
    """Return instances that have started; each storm leaves as many behind, all of them well."""
    with fleets.running(function, way, INSTANCES) as running:
        yield running

"""What the Dockerfile starts, started for real: it answers, lets requests finish, and ends when it is told to."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg
import pytest
from uvicorn.main import main

from shared.db.sizes import available_cpus, server_size
from shared.web.sigterm import EXIT_CODE
from tests.deploy import image
from tests.deploy.container import DRAINING, READY, STOPPED, Container, running
from tests.servers.process import free_port

LAST = image.read()[-1]

# An endpoint that waits for as long as the test wants, and says what it sees.
WAIT = '''"""Wait until the test lets go."""

from shared import db
from shared.web import Endpoint, Request

endpoint = Endpoint("/api/wait")


@endpoint.get
def wait(request: Request) -> dict[str, object]:
    db.execute("SELECT pg_notify('begun', '')")
    db.execute("SELECT pg_advisory_xact_lock_shared(1)")
    pool = db.get_pool()
    return {
        "client": request.client.host,
        "scheme": request.url.scheme,
        "pool": [pool.max_size, pool.idle_timeout],
    }
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image's files, with one endpoint more."""
    root = image.lay_out(tmp_path_factory.mktemp("image"))
    (root / "app" / "functions" / "wait.py").write_text(WAIT, "utf-8")
    return root


class Server:
    """The image's command, listening."""

    def __init__(self, container: Container, url: str, environ: dict[str, str]) -> None:
        self.container = container
        self.url = url
        self.environ = environ

    def health_check(self) -> int:
        """Run the image's own check and give its exit code."""
        done = subprocess.run(LAST.health_check, env=self.environ, capture_output=True, check=False, timeout=20)
        return done.returncode


@contextmanager
def serving(root: Path, database: str, **variables: str) -> Iterator[Server]:
    """Run the image's command with a database of this machine, on a free port."""
    port = free_port()
    environ = image.environment(root, DATABASE_URL=database, **variables)
    environ |= {"UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": str(port)}
    with running(LAST.command, environ, root / "app") as container:
        container.wait_for(READY)
        yield Server(container, f"http://127.0.0.1:{port}", environ)


@contextmanager
def waiting(server: Server, database: str, **headers: str) -> Iterator[tuple[Future[Any], psycopg.Connection[Any]]]:
    """Give a request that is under way and the connection whose lock it waits for."""
    with psycopg.connect(database, autocommit=True) as connection, ThreadPoolExecutor(1) as executor:
        connection.execute("SELECT pg_advisory_lock(1)")
        connection.execute("LISTEN begun")
        answer = executor.submit(httpx.get, f"{server.url}/api/wait", headers=headers, timeout=30)
        assert len(list(connection.notifies(timeout=20, stop_after=1))) == 1
        yield answer, connection


@pytest.mark.deploy
def test_it_answers_and_is_a_server_in_production(root: Path, migrated_database: str) -> None:
    with serving(root, migrated_database) as server:
        health = httpx.get(f"{server.url}/api/health")
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert "strict-transport-security" in health.headers, "APP_ENV is production"
        tables = httpx.get(f"{server.url}/api/db/test")
        assert (tables.status_code, tables.json()["status"]) == (200, "connected")
        assert server.health_check() == 0

        forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
        with waiting(server, migrated_database, **forwarded) as (answer, connection):
            connection.execute("SELECT pg_advisory_unlock_all()")
            seen = answer.result().json()
        size = server_size(available_cpus())
        assert seen == {"client": "203.0.113.7", "scheme": "https", "pool": [size.max_size, size.idle_timeout]}

        server.container.terminate()
        assert server.container.wait() == STOPPED


@pytest.mark.deploy
def test_it_believes_no_other_machine(root: Path, migrated_database: str) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    with (
        serving(root, migrated_database, FORWARDED_ALLOW_IPS="192.0.2.1") as server,
        waiting(server, migrated_database, **forwarded) as (answer, connection),
    ):
        connection.execute("SELECT pg_advisory_unlock_all()")
        assert answer.result().json()["client"] == "127.0.0.1"


@pytest.mark.deploy
def test_at_the_first_sigterm_requests_finish(root: Path, migrated_database: str) -> None:
    with serving(root, migrated_database) as server:
        with waiting(server, migrated_database) as (answer, connection):
            server.container.terminate()
            server.container.wait_for(DRAINING)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/api/health")
            connection.execute("SELECT pg_advisory_unlock_all()")
            assert answer.result().status_code == 200
        assert server.container.wait() == STOPPED
        assert "Traceback" not in server.container.output
    # That its connections are gone is what the fixture of the database looks for.


@pytest.mark.deploy
def test_at_the_second_sigterm_it_ends_at_once(root: Path, migrated_database: str) -> None:
    with serving(root, migrated_database) as server, waiting(server, migrated_database) as (answer, connection):
        server.container.terminate()
        server.container.wait_for(DRAINING)
        server.container.terminate()
        assert server.container.wait() == EXIT_CODE
        with pytest.raises(httpx.RemoteProtocolError):
            answer.result()
        connection.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.deploy
def test_workers_let_requests_finish_though_they_get_sigterm_from_two(root: Path, migrated_database: str) -> None:
    with serving(root, migrated_database, WEB_CONCURRENCY="2") as server:
        server.container.wait_for("Application startup complete", times=2)
        with waiting(server, migrated_database) as (answer, connection):
            server.container.terminate(everybody=True)
            server.container.wait_for("Terminated child process")  # the busy one, by its parent: that is its second
            connection.execute("SELECT pg_advisory_unlock_all()")
            assert answer.result().status_code == 200
        assert server.container.wait() == 0


@pytest.mark.deploy
def test_without_a_database_it_runs_and_is_unhealthy(root: Path) -> None:
    with serving(root, "") as server:
        assert httpx.get(f"{server.url}/api/health").status_code == 503
        assert server.health_check() == 1
        server.container.terminate()
        assert server.container.wait() == STOPPED
    assert server.health_check() == 1, "nobody listens"


# -- what the docs say of it ------------------------------------------------------------------------

PRODUCTION = (image.ROOT / "docs" / "PRODUCTION.md").read_text("utf-8")
CLOSING = 5 + 1  # seconds; shared.db.close_db, and the statements that it cancels then


def test_requests_and_connections_have_less_time_than_kubernetes_gives() -> None:
    requests = int(LAST.environment["UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"])
    assert requests + CLOSING < 30
    assert f"for {requests} s at most; then it closes its\ndatabase connections, within {CLOSING} s" in PRODUCTION


def test_the_variables_of_the_image_are_those_of_the_docs() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| [^|]+ \| ([^|]+) \|$", PRODUCTION.partition("### The image")[2], re.MULTILINE
    )
    documented = dict(rows)
    own = {name: value for name, value in LAST.environment.items() if name.startswith("UVICORN_")}
    expected = {"WEB_CONCURRENCY": "not set: 1", "FORWARDED_ALLOW_IPS": "not set: this machine"} | own
    del expected["UVICORN_HOST"]
    assert {name: documented.get(name) for name in expected} == expected


def test_the_example_of_workers_is_right() -> None:
    size = server_size(4).max_size
    assert f"on 4 CPUs {size}, and with\n`WEB_CONCURRENCY=4` {4 * size} of" in PRODUCTION


def test_the_unit_of_the_docs_starts_the_same_and_gives_it_time() -> None:
    (text,) = re.findall(r"```ini\n(.*?)```", PRODUCTION, re.DOTALL)
    unit = dict(re.findall(r"^\s*(\w+)=(.*)$", text, re.MULTILINE))
    program, *command = unit["ExecStart"].split()
    assert [Path(program).name, *command[:1]] == LAST.command
    options = {option for parameter in main.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word for word in command if word.startswith("--")}
    assert given <= options
    grace = command[command.index("--timeout-graceful-shutdown") + 1]
    assert grace == LAST.environment["UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"]
    assert int(grace) + CLOSING < int(unit["TimeoutStopSec"])
    assert unit["KillMode"] == "mixed"
    assert unit["ExecStartPre"].endswith("/python -m migrations deploy")

"""The built function under Vercel's own runtime, with a real database: every endpoint, many at once, and the end."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest

from shared.db.sizes import pool_size
from shared.settings import Settings
from shared.web.application import endpoints_in
from tests.deploy.conftest import RunInstance
from tests.deploy.tools import ROOT
from tests.deploy.vercel_instance import Answer, Instance
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy
from tests.shared.db.watching import name_of, running, sessions, until

pytestmark = pytest.mark.deploy

HOLDER = "the lock's holder"
TERMINATE = b"X\x00\x00\x00\x04"  # what a client says before it leaves (PostgreSQL manual 54.7)
PATHS = [re.sub(r"{\w+}", "1", endpoint.path) for endpoint in endpoints_in(ROOT / "functions", "functions")]
POOL_MAX = pool_size(Settings.read({"VERCEL": "1", "DATABASE_URL": "postgresql://u@db.example.com/x"})).max_size


@contextmanager
def held(postgres: Postgres, database: str) -> Iterator[None]:
    """Keep every request to /api/hold waiting for the time of the block."""
    lock, unlock = (f"SELECT pg_advisory_{what}lock(1)" for what in ("", "un"))
    url = postgres.admin_url(name_of(database))
    with psycopg.connect(url, autocommit=True, application_name=HOLDER) as connection:
        connection.execute(lock)
        yield
        connection.execute(unlock)


def held_requests(postgres: Postgres, database: str) -> int:
    return len(running(postgres, database, "pg_advisory_lock_shared"))


def of_the_app(postgres: Postgres, database: str) -> list[str | None]:
    """Return the states of the instance's sessions."""
    return [row.state for row in sessions(postgres, database) if row.application_name != HOLDER]


def test_every_endpoint_answers(vercel_instance_of: RunInstance, deployed_database: str) -> None:
    assert {"/api/health", "/api/db/test"} <= set(PATHS)
    with vercel_instance_of(DATABASE_URL=deployed_database, VERCEL_GIT_COMMIT_SHA="abc123") as instance:
        for path in PATHS:
            methods = instance.get(path, method="TRACE").headers["allow"].split(", ")
            for method in methods:
                answer = instance.get(path, method=method)
                # Some ask for a body, or for who is calling.
                assert answer.status in (200, 204, 401, 403, 415, 422), f"{method} {path}: {answer}"
                assert answer.headers["x-deployed-commit"] == "abc123"
                assert answer.headers["strict-transport-security"] == "max-age=63072000"
        for path in ("/api/health", "/api/db/test"):
            answer = instance.get(path)
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), path
        nothing = instance.get("/api/nothing?x=1")
        assert (nothing.status, nothing.headers["content-type"]) == (404, "application/problem+json")
        assert instance.get("/app.py").status == 404


def test_twenty_at_once_share_the_pool(
    vercel_instance_of: RunInstance, postgres: Postgres, deployed_database: str
) -> None:
    with (
        vercel_instance_of(DATABASE_URL=deployed_database) as instance,
        ThreadPoolExecutor(20 + len(PATHS)) as executor,
    ):
        with held(postgres, deployed_database):
            answers = [executor.submit(instance.get, "/api/hold") for _ in range(20)]
            until(lambda: held_requests(postgres, deployed_database) == POOL_MAX)
            # All connections are taken, and ten requests wait: a probe still answers, on a connection of its own.
            assert instance.get("/api/health").status == 200
            assert len(of_the_app(postgres, deployed_database)) <= POOL_MAX + 1
            assert held_requests(postgres, deployed_database) == POOL_MAX
        assert [answer.result().status for answer in answers] == [200] * 20
        assert len(of_the_app(postgres, deployed_database)) <= POOL_MAX
        mixed = executor.map(lambda number: instance.get(PATHS[number % len(PATHS)]).status, range(20))
        assert not [status for status in mixed if status >= 500]
    until(lambda: not of_the_app(postgres, deployed_database))


def test_sigterm_lets_requests_finish_and_closes_connections(
    vercel_instance_of: RunInstance, postgres: Postgres, deployed_database: str
) -> None:
    """Idle connections go at once, and by saying so: the platform may not wait for the request still under way."""
    with (
        WireProxy("127.0.0.1", postgres.port) as proxy,
        vercel_instance_of(DATABASE_URL=proxy.url(deployed_database)) as instance,
        ThreadPoolExecutor(3) as executor,
    ):
        with held(postgres, deployed_database):
            answers = [executor.submit(instance.get, "/api/hold") for _ in range(3)]
            until(lambda: held_requests(postgres, deployed_database) == 3)
        assert [answer.result().status for answer in answers] == [200] * 3
        # All three come back at once, so none of them was surplus yet.
        assert of_the_app(postgres, deployed_database) == ["idle"] * 3

        with held(postgres, deployed_database):
            last: Future[Answer] = executor.submit(instance.get, "/api/hold")
            until(lambda: held_requests(postgres, deployed_database) == 1)
            said = proxy.on("client", TERMINATE)
            instance.process.send_signal(signal.SIGTERM)
            until(lambda: of_the_app(postgres, deployed_database) == ["active"])
            said.wait()
            assert instance.process.poll() is None
            said = proxy.on("client", TERMINATE)
        assert last.result().status == 200
        # uvicorn, which the runtime uses, ends with the signal it was sent, once all is done.
        assert instance.process.wait(10) in (0, -signal.SIGTERM)
        said.wait()
    until(lambda: not of_the_app(postgres, deployed_database))


def test_a_request_gives_up_before_vercel_ends_it(
    vercel_instance_of: RunInstance, postgres: Postgres, deployed_database: str
) -> None:
    with (
        vercel_instance_of(DATABASE_URL=deployed_database) as instance,
        held(postgres, deployed_database),
    ):
        end = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat(timespec="milliseconds")
        answer = instance.get("/api/hold", headers={"x-vercel-internal-deadline": end})
        assert answer.status == 504
        until(lambda: held_requests(postgres, deployed_database) == 0)


def test_the_log_has_json_with_the_cause_and_without_the_password(
    vercel_instance_of: RunInstance, postgres: Postgres
) -> None:
    """Vercel's own log handler formats nothing: it sends the bare message."""
    url = postgres.url("no_such_database")
    with vercel_instance_of(DATABASE_URL=url) as instance:
        assert instance.get("/api/db/test").status == 503
        entry = json.loads(instance.log("database_unavailable"))
        assert entry["level"] == "error"
        assert entry["logger"].startswith("functions.")
        assert not [message for message in instance.logs if APP_PASSWORD in message]


def test_without_a_database_the_function_lives_and_says_so(vercel_instance_of: RunInstance) -> None:
    with vercel_instance_of() as instance:
        answer = instance.get("/api/health")
        assert (answer.status, answer.json()["status"]) == (503, "degraded")
        instance.log("DATABASE_URL is not set")
    with vercel_instance_of(DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/db") as instance:
        assert instance.get("/api/health").json()["services"] == {"database": "disconnected"}


def test_a_hook_that_did_not_run_is_noticed(vercel_instance_of: RunInstance, database: str) -> None:
    """As where a build command in the project's settings took the hook's place."""
    with vercel_instance_of(DATABASE_URL=database) as instance:
        assert instance.get("/api/health").status == 200
        instance.log("the schema is behind this code")
        assert instance.get("/api/db/test").json()["status"] == "tables_missing"


def test_a_cold_instance_answers_from_the_database_at_once(
    vercel_instance_of: RunInstance, deployed_database: str
) -> None:
    """Requests that arrive together at an instance that has just started wait for it, and none fails."""
    with vercel_instance_of(DATABASE_URL=deployed_database) as instance, ThreadPoolExecutor(20) as executor:
        answers = list(executor.map(partial(Instance.get, instance), ["/api/db/test"] * 20))
    assert [answer.status for answer in answers] == [200] * 20
    assert all(all(answer.json()["tables"].values()) for answer in answers)

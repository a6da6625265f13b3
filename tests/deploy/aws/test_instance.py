"""Instances as Lambda runs them: events of every endpoint, freezing, ending, several workers, and what can go wrong."""

from __future__ import annotations

import base64
import json
import os
import signal
from typing import Any

import psycopg
import pytest

from shared.web.application import EndpointFile, endpoints_in
from tests.deploy.aws.conftest import Start
from tests.deploy.aws.runtime_api import WAIT
from tests.deploy.tools import ROOT
from tests.servers.postgres import Postgres
from tests.shared.db import watching
from tests.shared.web.lambda_events import OTHERS, event

pytestmark = pytest.mark.deploy

ENDPOINTS = endpoints_in(ROOT / "functions", "functions")


def body(answer: dict[str, Any]) -> Any:
    return json.loads(answer["body"])


def handler_of(endpoint: EndpointFile) -> str:
    return f"{endpoint.module.replace('.', '/')}.handler"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_endpoint_answers(start: Start, lambda_database: str, endpoint: EndpointFile) -> None:
    methods = endpoint.load().methods
    path = endpoint.path.replace("{", "").replace("}", "")
    instance = start(handler_of(endpoint), DATABASE_URL=lambda_database, APP_ENV="test")
    api = instance.api

    for method in methods:
        answer = api.invoke(event(method, path))
        assert answer["statusCode"] not in (500, 502), instance.log
        assert answer["headers"]["cache-control"] == "no-store"
    other = api.invoke(event("PROPFIND", path))
    assert (other["statusCode"], other["headers"]["allow"]) == (405, endpoint.load().allow)
    assert api.invoke(event("GET", "/nowhere"))["statusCode"] == 404


def test_the_database_is_seen_from_inside(start: Start, lambda_database: str) -> None:
    health = start("functions/health.handler", DATABASE_URL=lambda_database).api.invoke(event(path="/api/health"))
    tables = start("functions/db_test.handler", DATABASE_URL=lambda_database).api.invoke(event(path="/api/db/test"))

    assert (health["statusCode"], body(health)["services"]) == (200, {"database": "connected"})
    assert (tables["statusCode"], body(tables)["status"]) == (200, "connected")


def test_one_function_may_answer_for_all(start: Start, lambda_database: str) -> None:
    api = start("app.handler", DATABASE_URL=lambda_database).api

    for endpoint in ("/api/health", "/api/db/test"):
        assert api.invoke(event(path=endpoint))["statusCode"] == 200
    assert api.invoke(event(path="/nowhere"))["statusCode"] == 404


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_both_drivers_work_out_of_the_zip(start: Start, lambda_database: str, driver: str) -> None:
    api = start("extra/probe.handler", DATABASE_URL=lambda_database, DATABASE_DRIVER=driver).api

    seen = body(api.invoke(event(path="/api/probe")))

    assert driver in seen["loaded"]
    assert not set(seen["loaded"]) & {"alembic", "argon2", "boto3", "migrations", "msgspec", "ops", "sqlalchemy"}
    assert "__pycache__/endpoint.cpython" in seen["bytecode"]


def test_the_function_runs_in_the_main_thread_and_starts_none(start: Start, lambda_database: str) -> None:
    api = start("extra/probe.handler", DATABASE_URL=lambda_database).api

    seen = [body(api.invoke(event(path="/api/probe"))) for _ in range(4)]

    assert all(one["main_thread"] for one in seen)
    assert {one["threads"] for one in seen} == {1}
    assert len({one["backend"] for one in seen}) == 1, "the connection outlives the invocation"


def test_bodies_and_cookies_go_both_ways(start: Start, lambda_database: str) -> None:
    api = start("extra/probe.handler", DATABASE_URL=lambda_database).api
    sent = json.dumps({"text": "é"}).encode()

    answer = api.invoke(
        event(
            "POST",
            "/api/probe",
            query="q=a%20b",
            headers={"content-type": "application/json"},
            cookies=["session=x", "theme=dark"],
            body=sent,
        )
    )

    assert (answer["statusCode"], answer["isBase64Encoded"]) == (201, True)
    assert base64.b64decode(answer["body"]) == b"\x00\xff" + "é".encode()
    assert answer["headers"]["x-cookies"] == "session=x,theme=dark"
    assert answer["headers"]["x-query"] == "a b"
    assert [cookie.partition(";")[0] for cookie in answer["cookies"]] == ["a=1", "b=2"]


def test_schedules_and_the_like_are_ignored(start: Start) -> None:
    api = start("functions/health.handler").api

    assert [api.invoke(other) for other in OTHERS] == [{"ignored": True}] * len(OTHERS)


def test_a_schedule_makes_the_periodic_check(start: Start, lambda_database: str) -> None:
    api = start("functions/watch.handler", DATABASE_URL=lambda_database).api
    schedule = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}

    assert "status" in api.invoke(schedule)
    assert api.invoke(event(path="/api/watch"))["statusCode"] == 401


def test_lambdas_time_bounds_a_statement(start: Start, lambda_database: str) -> None:
    api = start("extra/slow.handler", DATABASE_URL=lambda_database).api

    assert api.invoke(event(path="/api/slow/query"), timeout=1.2)["statusCode"] == 504
    assert api.invoke(event(path="/api/slow/nothing"))["statusCode"] == 200


def test_an_endpoint_that_cannot_be_imported_says_which_module(start: Start) -> None:
    instance = start("extra/broken.handler")

    assert instance.api.failed.wait(WAIT)
    assert instance.api.init_error["errorType"] == "Runtime.ImportModuleError"
    assert "No module named 'a_package_that_nobody_requires'" in instance.api.init_error["errorMessage"]
    instance.process.wait(WAIT)
    assert "Unable to import module 'extra/broken'" in instance.log


def test_a_connection_that_the_server_ended_during_a_freeze_is_replaced(
    start: Start, lambda_database: str, postgres: Postgres
) -> None:
    instance = start("extra/probe.handler", DATABASE_URL=lambda_database)
    before = body(instance.api.invoke(event(path="/api/probe")))
    instance.api.wait_until_idle(2)

    os.kill(instance.process.pid, signal.SIGSTOP)
    watching.terminate(postgres, before["backend"])
    os.kill(instance.process.pid, signal.SIGCONT)
    after = instance.api.invoke(event(path="/api/probe"))

    assert after["statusCode"] == 200
    assert body(after)["backend"] != before["backend"]
    assert body(after)["pid"] == before["pid"]


def test_sigterm_closes_the_connections_where_it_is_asked_for(
    start: Start, lambda_database: str, postgres: Postgres
) -> None:
    instance = start("extra/probe.handler", DATABASE_URL=lambda_database, LAMBDA_CLOSE_ON_SIGTERM="true")
    assert body(instance.api.invoke(event(path="/api/probe")))["threads"] == 2, "the extension's, beside the main one"
    assert instance.api.extensions == [("close-connections", {"events": []})]
    instance.api.wait_until_idle(2)

    instance.process.terminate()

    assert instance.process.wait(WAIT) == 0
    assert watching.until(lambda: watching.sessions(postgres, lambda_database) == [])


def test_forked_workers_have_connections_of_their_own(start: Start, lambda_database: str, postgres: Postgres) -> None:
    instance = start(
        "extra/slow.handler",
        DATABASE_URL=lambda_database,
        LAMBDA_CLOSE_ON_SIGTERM="true",
        AWS_LAMBDA_MAX_CONCURRENCY="3",
    )
    api = instance.api
    api.wait_until_idle(3)
    with psycopg.connect(lambda_database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        invocations = [api.send(event(path="/api/slow/lock")) for _ in range(3)]
        watching.until(lambda: len(watching.running(postgres, lambda_database, "advisory_lock_shared")) == 3)

    assert [invocation.wait()["statusCode"] for invocation in invocations] == [200] * 3
    assert len(instance.workers()) == 3
    assert api.extensions == [], "they would all register under one name"

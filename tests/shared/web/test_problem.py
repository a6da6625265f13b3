"""Errors as problem documents: the right status, and nothing of the inside."""

import http
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from shared import db, errors
from shared.db.url import DatabaseURL
from shared.web import Endpoint, Problem
from shared.web.problem import problem_from
from tests.servers.postgres import APP
from tests.servers.process import free_port
from tests.shared.web.conftest import Serve, Use

# What nobody outside may learn: who, where, what was asked, and with which parts.
INSIDE = re.compile(
    r"127\.0\.0\.1|localhost|\bport\b|canary|password|SELECT|INSERT|relation|constraint|psycopg|pg8000|Traceback|\.py\b",
    re.IGNORECASE,
)


def client_of(serve: Serve, function: Callable[[], Any]) -> TestClient:
    endpoint = Endpoint("/api/x")
    endpoint.get(function)
    return serve(endpoint)


def assert_problem(client: TestClient, status: int, title: str, detail: str, retry_after: str | None = None) -> None:
    response = client.get("/api/x")

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get("retry-after") == retry_after
    assert response.json() == {"type": "about:blank", "title": title, "status": status, "detail": detail}
    assert not INSIDE.search(str(response.headers)), response.headers
    assert not INSIDE.search(response.text), response.text
    assert APP not in response.json()["detail"].split()


BUSY = (503, "Service Unavailable", "The service is busy. Try again shortly.", "1")
DOWN = (503, "Service Unavailable", "The database cannot be reached at the moment.", "5")
LATE = (504, "Gateway Timeout", "The request took longer than it may.", None)
UNKNOWN = (500, "Internal Server Error", "It is not known whether the change was saved. Look first.", None)
FAILED = (500, "Internal Server Error", "The request could not be completed.", None)
WRONG = (500, "Internal Server Error", "The service is not configured correctly.", None)
REFERENCE = (409, "Conflict", "It refers to something that is not there, or is still referred to.", None)
REFUSED = (422, http.HTTPStatus(422).phrase, "A value was given that cannot be stored.", None)  # the phrase changed
THERE = (409, "Conflict", "Something with that key exists already.", None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Overloaded, BUSY),
        (errors.PoolTimeout, BUSY),
        (errors.SerializationFailure, BUSY),
        (errors.DeadlockDetected, BUSY),
        (errors.LockNotAvailable, BUSY),
        (errors.PoolClosed, DOWN),
        (errors.DatabaseUnavailable, DOWN),
        (errors.TooManyConnections, DOWN),
        (errors.InvalidPassword, DOWN),
        (errors.TransactionResolutionUnknown, UNKNOWN),
        (errors.DeadlineExceeded, LATE),
        (errors.QueryCanceled, LATE),
        (errors.ConfigurationError, WRONG),
        (errors.UniqueViolation, THERE),
        (errors.ForeignKeyViolation, REFERENCE),
        (errors.CheckViolation, REFUSED),
        (errors.NotNullViolation, REFUSED),
        (errors.DataException, REFUSED),
        (SystemExit, FAILED),
        (errors.UndefinedTable, FAILED),
        (errors.DatabaseError, FAILED),
        (errors.Error, FAILED),
        (RuntimeError, FAILED),
        (KeyError, FAILED),
    ],
)
def test_every_error_has_its_answer(
    serve: Serve, error: type[BaseException], expected: tuple[int, str, str, str | None]
) -> None:
    def fail() -> None:
        raise error("canary at 127.0.0.1: SELECT")

    assert_problem(client_of(serve, fail), *expected)


# -- what a real database says ----------------------------------------------------------------------


def test_a_wrong_password(serve: Serve, use: Use, driver: str, database: str) -> None:
    url = DatabaseURL.parse(database)
    use(DATABASE_URL=f"postgresql://{APP}:canary@127.0.0.1:{url.port}/{url.database}")
    assert_problem(client_of(serve, lambda: db.fetch_value("SELECT 1")), *DOWN)


def test_a_database_that_is_not_there(serve: Serve, use: Use, driver: str, database: str) -> None:
    url = DatabaseURL.parse(database)
    use(DATABASE_URL=database.replace(f"/{url.database}", "/canary"))
    assert_problem(client_of(serve, lambda: db.fetch_value("SELECT 1")), *DOWN)


def test_a_refused_connection(serve: Serve, use: Use, driver: str) -> None:
    use(DATABASE_URL=f"postgresql://canary:canary@127.0.0.1:{free_port()}/canary")
    assert_problem(client_of(serve, lambda: db.fetch_value("SELECT 1")), *DOWN)


def test_a_connection_that_is_lost(serve: Serve, use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database)
    end = "SELECT pg_terminate_backend(pg_backend_pid()) AS canary"
    assert_problem(client_of(serve, lambda: db.fetch_value(end)), *DOWN)


def test_no_database_url(serve: Serve, use: Use) -> None:
    use(APP_ENV="production")
    assert_problem(client_of(serve, lambda: db.fetch_value("SELECT 1")), *WRONG)


@pytest.mark.parametrize(
    "variables",
    [
        {"APP_ENV": "nonsense"},
        {"DATABASE_URL": "postgresql://canary:can%ary@127.0.0.1/canary"},
        {"REQUEST_TIMEOUT": "x"},
    ],
)
def test_a_wrong_variable(serve: Serve, use: Use, variables: dict[str, str]) -> None:
    use(**variables)
    assert_problem(client_of(serve, lambda: db.fetch_value("SELECT 1")), *WRONG)


@pytest.mark.parametrize("statement", ["SELECT * FROM canary", "SELEKT canary", "SELECT 1 / 0 AS canary"])
def test_a_statement_that_is_refused(serve: Serve, use: Use, driver: str, database: str, statement: Any) -> None:
    use(DATABASE_URL=database)
    assert_problem(client_of(serve, lambda: db.fetch_value(statement)), *FAILED)


def test_a_parameter_that_is_missing_is_a_mistake_and_no_outage(
    serve: Serve, use: Use, driver: str, database: str
) -> None:
    use(DATABASE_URL=database)
    assert_problem(client_of(serve, lambda: db.fetch_value("SELECT %(canary)s", {"other": 1})), *FAILED)


def test_a_key_that_exists(serve: Serve, use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database)
    db.execute("CREATE TABLE canary (id int PRIMARY KEY)")

    def insert() -> int:
        return db.execute("INSERT INTO canary VALUES (%(id)s)", {"id": 1})

    client = client_of(serve, insert)
    assert client.get("/api/x").json() == 1
    assert_problem(client, *THERE)
    assert db.fetch_value("SELECT count(*) FROM canary") == 1


def test_a_lock_that_is_held(serve: Serve, use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database)
    db.execute("CREATE TABLE canary (id int PRIMARY KEY)")

    with db.transaction() as tx:
        tx.execute("LOCK TABLE canary")

        def lock() -> None:
            with db.transaction() as other:
                other.execute("LOCK TABLE canary NOWAIT")

        assert_problem(client_of(serve, lock), *BUSY)


def test_a_transaction_that_lost(serve: Serve, use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database)
    db.execute("CREATE TABLE canary AS SELECT 1 AS n")

    def lose() -> None:
        with db.transaction(isolation="repeatable read") as tx:
            tx.fetch_value("SELECT n FROM canary")
            db.execute("UPDATE canary SET n = 2")
            tx.execute("UPDATE canary SET n = 3")

    assert_problem(client_of(serve, lose), *BUSY)


def test_a_statement_that_the_server_ends(serve: Serve, use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database)

    def slow() -> None:
        with db.transaction() as tx:
            tx.execute("SET LOCAL statement_timeout = 50")
            tx.execute("SELECT pg_sleep(600) AS canary")

    assert_problem(client_of(serve, slow), *LATE)


def test_a_pool_that_is_busy(serve: Serve, use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database, DATABASE_POOL_MAX="1", DATABASE_POOL_TIMEOUT="15")

    with db.transaction() as tx:
        tx.execute("SELECT 1")
        db.get_pool().timeout = 0.1  # not before: opening the first connection counts too
        assert_problem(client_of(serve, lambda: db.fetch_value("SELECT 1")), *BUSY)


# -- problems of an endpoint's own ------------------------------------------------------------------


def test_an_endpoint_raises_its_own(serve: Serve) -> None:
    def fail() -> None:
        raise Problem(429, "Slow down.", headers={"Retry-After": "7"}, type="https://example.com/slow", limit=10)

    response = client_of(serve, fail).get("/api/x")

    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.json() == {
        "type": "https://example.com/slow",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Slow down.",
        "limit": 10,
    }


def test_a_status_that_does_not_exist_is_the_endpoints_failure(serve: Serve) -> None:
    def fail() -> None:
        raise Problem(599, "canary")

    assert_problem(client_of(serve, fail), *FAILED)


# -- the log ----------------------------------------------------------------------------------------


def test_the_log_has_what_the_client_must_not_know(caplog: pytest.LogCaptureFixture) -> None:
    problem_from(errors.DatabaseUnavailable("connection to 10.1.2.3 refused", sqlstate="08006"))

    (record,) = caplog.records
    assert record.getMessage() == "database_unavailable: connection to 10.1.2.3 refused"
    assert vars(record)["sqlstate"] == "08006"


def test_an_error_that_nobody_expected_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    problem_from(KeyError("canary"))

    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@pytest.mark.parametrize("error", [Problem(404, "No such note."), errors.UniqueViolation("exists")])
def test_what_a_client_did_wrong_is_not_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    problem_from(error)

    assert not caplog.records

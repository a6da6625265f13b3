"""Endpoints as Lambda calls them: events of an HTTP API, in the caller's thread, within Lambda's time."""

import asyncio
import base64
import json
import threading
from typing import Any

import pytest

import app
from shared import db, deadline
from shared.web import Endpoint, Problem, lambda_handler
from tests.shared.web.conftest import Use

PLENTY = 600_000  # milliseconds


class Context:
    """Lambda's context object, as far as it is used."""

    def __init__(self, milliseconds: int = PLENTY) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


def event(
    method: str = "GET",
    path: str = "/api/x",
    *,
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> dict[str, Any]:
    """Return an event of an HTTP API (payload format 2.0), as API Gateway's developer guide shows it."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "id.execute-api.eu-central-1.amazonaws.com", **(headers or {})},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "id.execute-api.eu-central-1.amazonaws.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "curl",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "19/Dec/2025:10:30:00 +0000",
            "timeEpoch": 1766140200000,
        },
        "isBase64Encoded": body is not None,
    }
    if body is not None:
        event["body"] = base64.b64encode(body).decode()
    return event


@pytest.fixture
def endpoint() -> Endpoint:
    """Return an endpoint that says what it got."""
    endpoint = Endpoint("/api/x/{id}")

    @endpoint.get
    def read(id: int) -> Any:
        if id > 9:
            raise Problem(404, "No such note: é.")
        return {"id": id, "thread": threading.get_ident(), "left": deadline.remaining()}

    @endpoint.post
    def write(id: int, body: dict[str, str]) -> Any:
        return {"id": id, "body": body}

    return endpoint


def test_a_single_endpoints_handler_answers(endpoint: Endpoint) -> None:
    handler = lambda_handler(endpoint)

    for _ in range(2):
        answer = handler(event(path="/api/x/7"), Context())
        assert answer["statusCode"] == 200
        assert answer["isBase64Encoded"] is False
        assert answer["headers"]["content-type"] == "application/json"
        assert answer["headers"]["cache-control"] == "no-store"
        assert json.loads(answer["body"])["id"] == 7


def test_it_runs_in_the_callers_thread(endpoint: Endpoint) -> None:
    answer = lambda_handler(endpoint)(event(path="/api/x/7"), Context())

    assert json.loads(answer["body"])["thread"] == threading.get_ident()


def test_a_body_may_come_as_base64(endpoint: Endpoint) -> None:
    body = '{"title": "é"}'.encode()
    request = event("POST", "/api/x/7", headers={"content-type": "application/json"}, body=body)

    answer = lambda_handler(endpoint)(request, Context())

    assert json.loads(answer["body"]) == {"id": 7, "body": {"title": "é"}}
    request["body"] = "{"
    request["isBase64Encoded"] = False
    assert lambda_handler(endpoint)(request, Context())["statusCode"] == 400


def test_a_problem_is_text_too(endpoint: Endpoint) -> None:
    answer = lambda_handler(endpoint)(event(path="/api/x/10"), Context())

    assert answer["statusCode"] == 404
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert answer["isBase64Encoded"] is False
    assert json.loads(answer["body"])["detail"] == "No such note: é."


def test_other_methods_and_paths(endpoint: Endpoint) -> None:
    handler = lambda_handler(endpoint)

    assert handler(event("DELETE", "/api/x/7"), Context())["headers"]["allow"] == "GET, HEAD, POST"
    assert handler(event(path="/api/y"), Context())["statusCode"] == 404
    head = handler(event("HEAD", "/api/x/7"), Context())
    assert (head["statusCode"], head["body"]) == (200, "")


@pytest.mark.parametrize(
    ("milliseconds", "least", "most"),
    [(10_000, 1.0, 9.5), (PLENTY, 10.0, 25.0), (400, 0.0, 0.0)],
)
def test_lambdas_time_is_the_deadline(endpoint: Endpoint, milliseconds: int, least: float, most: float) -> None:
    answer = lambda_handler(endpoint)(event(path="/api/x/7"), Context(milliseconds))

    assert least <= json.loads(answer["body"])["left"] <= most
    assert deadline.remaining() is None


def test_a_statement_is_cancelled_before_lambda_ends_the_function(use: Use, database: str) -> None:
    use(DATABASE_URL=database)
    endpoint = Endpoint("/api/x")
    endpoint.get(lambda: db.fetch_value("SELECT pg_sleep(600)"))

    answer = lambda_handler(endpoint)(event(), Context(1500))

    assert answer["statusCode"] == 504
    others = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert db.fetch_all(others) == []


@pytest.mark.parametrize(
    "other",
    [
        {},
        None,
        [],
        "warm",
        5,
        {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
        {"source": "serverless-plugin-warmup"},
        {"Records": [{"eventSource": "aws:sqs", "body": "x"}]},
        {"version": "1.0", "requestContext": {"requestId": "x", "condition": "Success"}, "requestPayload": {}},
        {"requestContext": None},
    ],
)
def test_what_is_no_request_is_ignored(endpoint: Endpoint, other: object) -> None:
    assert lambda_handler(endpoint)(other, Context()) == {"ignored": True}


def test_a_rest_api_and_a_load_balancer_are_answered_too(endpoint: Endpoint) -> None:
    rest = {
        "resource": "/{proxy+}",
        "path": "/api/x/7",
        "httpMethod": "GET",
        "headers": {"Host": "x"},
        "multiValueHeaders": {"Host": ["x"]},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"httpMethod": "GET", "path": "/api/x/7", "stage": "prod", "identity": {"sourceIp": "x"}},
        "body": None,
        "isBase64Encoded": False,
    }
    balancer = {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:x"}},
        "httpMethod": "GET",
        "path": "/api/x/7",
        "queryStringParameters": {},
        "headers": {"host": "x", "x-forwarded-for": "192.0.2.1"},
        "body": "",
        "isBase64Encoded": False,
    }
    handler = lambda_handler(endpoint)

    for request in (rest, balancer):
        assert json.loads(handler(request, Context())["body"])["id"] == 7


def test_one_function_for_all_endpoints(use: Use, migrated_database: str) -> None:
    use(DATABASE_URL=migrated_database)

    health = app.handler(event(path="/api/health"), Context())
    tables = app.handler(event(path="/api/db/test"), Context())

    assert (health["statusCode"], json.loads(health["body"])["status"]) == (200, "ok")
    assert (tables["statusCode"], json.loads(tables["body"])["status"]) == (200, "connected")
    assert app.handler({}, Context()) == {"ignored": True}


def test_it_needs_no_event_loop_of_the_thread(endpoint: Endpoint) -> None:
    handler = lambda_handler(endpoint)
    answers = [handler(event(path="/api/x/7"), Context())["statusCode"]]

    asyncio.run(asyncio.sleep(0))  # which leaves the thread without one
    answers.append(handler(event(path="/api/x/7"), Context())["statusCode"])
    thread = threading.Thread(target=lambda: answers.append(handler(event(path="/api/x/7"), Context())["statusCode"]))
    thread.start()
    thread.join()

    assert answers == [200, 200, 200]


def test_the_pool_outlives_an_invocation(use: Use, database: str) -> None:
    use(DATABASE_URL=database)
    endpoint = Endpoint("/api/x")
    endpoint.get(lambda: db.fetch_value("SELECT pg_backend_pid()"))
    handler = lambda_handler(endpoint)

    assert handler(event(), Context())["body"] == handler(event(), Context())["body"]

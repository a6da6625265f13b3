"""Endpoints as Lambda calls them: events of an HTTP API, in the caller's thread, within Lambda's time."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response, StreamingResponse

import app
from shared import db, deadline
from shared.web import Endpoint, Problem, Reply, lambda_handler
from tests.shared.web.conftest import Use
from tests.shared.web.lambda_events import OTHERS, PLENTY, Context, event


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


@pytest.mark.parametrize("other", OTHERS)
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


# -- answered without ASGI, where that is enough ----------------------------------------------------


def cookies() -> Response:
    response = PlainTextResponse("two", headers={"x-own": "a"})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def failing() -> None:
    raise RuntimeError("of the code")


def busy() -> None:
    raise Problem(503, "Later.", headers={"Retry-After": "1"})


ANSWERS: dict[str, Callable[[], Any]] = {
    "object": lambda: {"name": "é", "n": 1.5},
    "list": lambda: [],
    "reply": lambda: Reply({"a": 1}, status=201, headers={"X-A": "b", "Cache-Control": "max-age=1"}),
    "problem": busy,
    "error": failing,
    "text": lambda: PlainTextResponse("é"),
    "other encoding": lambda: Response("é".encode("latin-1"), media_type="text/plain"),
    "bytes": lambda: Response(b"\x00\xff", media_type="image/png"),
    "cookies": cookies,
    "stream": lambda: StreamingResponse(iter([b"a", b"b"]), media_type="text/plain"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_the_one_that_asgi_gives(use: Use, name: str) -> None:
    def answer() -> Any:
        endpoint = Endpoint("/api/x")
        endpoint.get(ANSWERS[name])
        return lambda_handler(endpoint)(event(), Context())

    use(DATABASE_URL="postgresql://u:p@db.example.com/x", APP_ENV="production", APP_COMMIT="abc")
    direct = answer()
    use(APP_ENV="production", CORS_ALLOW_ORIGINS="https://app.example.com")  # which only the app knows
    through_app = answer()
    assert through_app["headers"].pop("vary") == "Origin"
    assert through_app == direct
    assert direct["headers"]["x-deployed-commit"] == "abc"


def test_nothing_is_no_json() -> None:
    endpoint = Endpoint("/api/x")
    endpoint.get(lambda: None)

    answer = lambda_handler(endpoint)(event(), Context())

    assert (answer["statusCode"], answer["body"], answer["isBase64Encoded"]) == (204, "", False)
    assert "content-type" not in answer["headers"]


def test_what_runs_in_the_background_runs(use: Use) -> None:
    done: list[int] = []
    endpoint = Endpoint("/api/x")
    endpoint.get(lambda: Response("x", background=BackgroundTask(done.append, 1)))

    assert lambda_handler(endpoint)(event(), Context())["statusCode"] == 200
    assert done == [1]


def test_cors_is_answered(use: Use, endpoint: Endpoint) -> None:
    use(CORS_ALLOW_ORIGINS="https://app.example.com")

    answer = lambda_handler(endpoint)(event(path="/api/x/7", headers={"origin": "https://app.example.com"}), Context())

    assert answer["headers"]["access-control-allow-origin"] == "https://app.example.com"


def test_wrong_settings_are_answered_and_logged(use: Use, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    use(REQUEST_TIMEOUT="soon")

    assert lambda_handler(endpoint)(event(path="/api/x/7"), Context())["statusCode"] == 200
    assert "REQUEST_TIMEOUT" in caplog.text


def test_a_path_may_be_encoded() -> None:
    endpoint = Endpoint("/api/x/{name}")

    @endpoint.get
    def read(name: str) -> Any:
        return name

    assert json.loads(lambda_handler(endpoint)(event(path="/api/x/a%20%C3%A9"), Context())["body"]) == "a é"

"""Endpoints as people write them: what a function asks for, what it returns, and where it runs."""

import asyncio
import datetime
import decimal
import enum
import threading
import uuid
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from shared import db, deadline
from shared.web import Endpoint, Reply, Request
from shared.web.application import application
from shared.web.endpoint import run_inline
from tests.shared.web.conftest import Serve, Use

WAIT = 30.0  # seconds until a thread that should have come counts as lost


def endpoint_of(function: Callable[..., Any], path: str = "/api/x") -> Endpoint:
    endpoint = Endpoint(path)
    endpoint.get(function)
    return endpoint


# -- what a function asks for -----------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "42", 42),
        (int, "-1", -1),
        (uuid.UUID, "6b1f7b0e-8a0e-4c57-9f0a-2f1f0a1b2c3d", uuid.UUID("6b1f7b0e8a0e4c579f0a2f1f0a1b2c3d")),
        (str, "42", "42"),
        (str, "a%20b", "a b"),
        (str, "%C3%A9", "é"),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (Colour, "red", Colour.RED),
    ],
)
def test_path_parameters_come_as_annotated(serve: Serve, kind: type, text: str, value: object) -> None:
    got: list[object] = []

    def read(id: Any) -> None:
        got.append(id)

    read.__annotations__["id"] = kind
    assert serve(endpoint_of(read, "/api/x/{id}")).get(f"/api/x/{text}").status_code == 204

    assert got == [value]
    assert type(got[0]) is kind


@pytest.mark.parametrize(
    ("kind", "text"),
    [(int, "x"), (int, "1.5"), (int, "9" * 5000), (uuid.UUID, "42"), (decimal.Decimal, "x"), (Colour, "blue")],
)
def test_what_cannot_be_converted_is_not_found(serve: Serve, kind: type, text: str) -> None:
    def read(id: Any) -> None:
        raise AssertionError("it was called")

    read.__annotations__["id"] = kind
    response = serve(endpoint_of(read, "/api/x/{id}")).get(f"/api/x/{text}")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert text not in response.text


def test_a_parameter_without_an_annotation_is_text(serve: Serve) -> None:
    def read(id, part) -> Any:  # type: ignore[no-untyped-def]
        return [id, part]

    assert serve(endpoint_of(read, "/api/x/{id}/{part}")).get("/api/x/1/2").json() == ["1", "2"]


def test_a_function_may_leave_a_parameter_of_the_path_out(serve: Serve) -> None:
    assert serve(endpoint_of(lambda: "ok", "/api/x/{id}")).get("/api/x/1").json() == "ok"


def test_the_request_is_given_to_who_asks(serve: Serve) -> None:
    def read(request: Request, id: int) -> Any:
        return [id, request.query_params["q"], request.headers["x-y"]]

    client = serve(endpoint_of(read, "/api/x/{id}"))

    assert client.get("/api/x/7?q=a%26b", headers={"X-Y": "z"}).json() == [7, "a&b", "z"]


def test_mistakes_are_told_when_the_module_is_loaded() -> None:
    endpoint = Endpoint("/api/x/{id}")

    async def coroutine() -> None: ...
    def unknown(name: str) -> None: ...
    def several(*names: str) -> None: ...
    def any_body(body) -> None: ...  # type: ignore[no-untyped-def]
    def union(id: int | None) -> None: ...

    with pytest.raises(TypeError, match="coroutine must be a plain function: write def"):
        endpoint.get(coroutine)
    with pytest.raises(TypeError, match=r"unknown asks for name, which /api/x/\{id\} does not name"):
        endpoint.get(unknown)
    with pytest.raises(TypeError, match="several asks for names"):
        endpoint.get(several)
    with pytest.raises(TypeError, match="any_body must annotate body"):
        endpoint.post(any_body)
    with pytest.raises(TypeError, match="union must annotate id"):
        endpoint.get(union)


def test_a_function_stays_what_it_was() -> None:
    endpoint = Endpoint("/api/x")

    @endpoint.get
    def read() -> str:
        return "called"

    assert read() == "called"


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_every_method_has_its_function(serve: Serve, method: str) -> None:
    endpoint = Endpoint("/api/x")

    def answering(text: str) -> Callable[[], str]:
        return lambda: text

    for name in ("get", "post", "put", "patch", "delete"):
        getattr(endpoint, name)(answering(name))

    assert serve(endpoint).request(method, "/api/x").json() == method


# -- what it returns --------------------------------------------------------------------------------


def test_rows_are_written_as_json(serve: Serve) -> None:
    row = {
        "text": "é €",
        "number": 12345678901234567890,
        "float": 1.5,
        "nothing": None,
        "truth": True,
        "list": [1, [2]],
        "json": {"a": 1},
        "numeric": decimal.Decimal("12.340"),
        "uuid": uuid.UUID("6b1f7b0e-8a0e-4c57-9f0a-2f1f0a1b2c3d"),
        "date": datetime.date(2025, 12, 19),
        "time": datetime.time(10, 30),
        "timestamptz": datetime.datetime(2025, 12, 19, 10, 30, tzinfo=datetime.UTC),
        "timestamp": datetime.datetime(2025, 12, 19, 10, 30, 0, 123000),  # noqa: DTZ001 - of a column without zone
    }

    response = serve(endpoint_of(lambda: row)).get("/api/x")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        **row,
        "numeric": "12.340",
        "uuid": "6b1f7b0e-8a0e-4c57-9f0a-2f1f0a1b2c3d",
        "date": "2025-12-19",
        "time": "10:30:00",
        "timestamptz": "2025-12-19T10:30:00+00:00",
        "timestamp": "2025-12-19T10:30:00.123000",
    }
    assert list(response.json()) == list(row)
    assert "é €" in response.text


@pytest.mark.parametrize("value", [object(), b"bytes", float("nan"), float("inf"), "\udcff", {object(): 1}])
def test_what_json_cannot_hold_is_an_error_and_no_broken_json(serve: Serve, value: object) -> None:
    response = serve(endpoint_of(lambda: [value])).get("/api/x")

    assert response.status_code == 500
    assert response.json()["detail"] == "The request could not be completed."


def test_nothing_is_no_content(serve: Serve) -> None:
    response = serve(endpoint_of(lambda: None)).get("/api/x")

    assert response.status_code == 204
    assert response.content == b""
    assert "content-type" not in response.headers


@pytest.mark.parametrize("value", [{}, [], "", 0, False])
def test_an_empty_value_is_something(serve: Serve, value: object) -> None:
    response = serve(endpoint_of(lambda: value)).get("/api/x")

    assert response.status_code == 200
    assert response.json() == value


def test_a_reply_has_a_status_and_headers_of_its_own(serve: Serve) -> None:
    response = serve(endpoint_of(lambda: Reply({"id": 1}, status=201, headers={"Location": "/api/x/1"}))).get("/api/x")

    assert response.status_code == 201
    assert response.headers["location"] == "/api/x/1"
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"id": 1}


@pytest.mark.parametrize("status", [201, 204, 304])
def test_a_reply_may_have_no_body(serve: Serve, status: int) -> None:
    response = serve(endpoint_of(lambda: Reply(status=status, headers={"ETag": '"1"'}))).get("/api/x")

    assert response.status_code == status
    assert response.content == b""
    assert response.headers["etag"] == '"1"'
    assert response.headers.get("content-length", "0") == "0"


def test_a_response_goes_out_as_it_is(serve: Serve) -> None:
    response = serve(endpoint_of(lambda: PlainTextResponse("hello", status_code=202))).get("/api/x")

    assert response.status_code == 202
    assert response.text == "hello"


# -- where it runs ----------------------------------------------------------------------------------


def test_functions_run_in_threads_side_by_side() -> None:
    together = threading.Barrier(2)

    def meet() -> str:
        together.wait(WAIT)  # broken unless both are here at once
        return threading.current_thread().name

    async def both() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(application([endpoint_of(meet)]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.get("/api/x") for _ in range(2)))

    answers = asyncio.run(both())

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() != answers[1].json()


def test_a_probe_answers_while_every_other_thread_is_busy() -> None:
    release, busy = threading.Event(), threading.Semaphore(0)
    answered: list[str] = []

    def block() -> str:
        busy.release()
        assert release.wait(WAIT)
        answered.append("ordinary")
        return "done"

    probe = Endpoint("/api/probe", probe=True)

    @probe.get
    def alive() -> str:
        answered.append("probe")
        return "alive"

    async def run() -> tuple[list[httpx2.Response], list[httpx2.Response]]:
        transport = httpx2.ASGITransport(application([endpoint_of(block), probe]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            ordinary = [asyncio.ensure_future(client.get("/api/x")) for _ in range(45)]
            try:
                for _ in range(40):
                    assert await asyncio.to_thread(busy.acquire, timeout=WAIT)
                probes = await asyncio.wait_for(asyncio.gather(*(client.get("/api/probe") for _ in range(10))), WAIT)
            finally:
                release.set()
            return probes, await asyncio.gather(*ordinary)

    probes, ordinary = asyncio.run(run())

    assert [response.json() for response in probes] == ["alive"] * 10
    assert answered[:10] == ["probe"] * 10
    assert [response.json() for response in ordinary] == ["done"] * 45


def test_more_probes_than_a_handful_run_at_once() -> None:
    callers = 20
    together = threading.Barrier(callers)
    probe = Endpoint("/api/probe", probe=True)

    @probe.get
    def meet() -> str:
        together.wait(WAIT)  # every load balancer and monitor asks at the same moment
        return "alive"

    async def run() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(application([probe]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.get("/api/probe") for _ in range(callers)))

    assert [response.status_code for response in asyncio.run(run())] == [200] * callers


def test_inline_it_runs_where_it_was_asked() -> None:
    threads: list[threading.Thread] = []
    app = application([endpoint_of(lambda: threads.append(threading.current_thread()))])

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/api/x")

    assert asyncio.run(ask()).status_code == 204
    token = run_inline.set(True)
    try:
        assert asyncio.run(ask()).status_code == 204
    finally:
        run_inline.reset(token)

    assert threads[0] is not threading.current_thread()
    assert threads[1] is threading.current_thread()


# -- how long it may take ---------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "limit"), [({}, 25.0), ({"REQUEST_TIMEOUT": "300"}, 300.0)])
def test_a_request_has_a_deadline(serve: Serve, use: Use, variable: dict[str, str], limit: float) -> None:
    use(**variable)

    left = serve(endpoint_of(deadline.remaining)).get("/api/x").json()

    assert limit - WAIT / 2 < left <= limit


def test_a_request_has_a_deadline_where_the_environment_is_wrong(serve: Serve, use: Use) -> None:
    use(APP_ENV="nonsense")

    left = serve(endpoint_of(deadline.remaining)).get("/api/x").json()

    assert 0 < left <= 25


def test_a_statement_past_the_deadline_is_cancelled(serve: Serve, use: Use, database: str) -> None:
    use(DATABASE_URL=database, REQUEST_TIMEOUT="1")

    response = serve(endpoint_of(lambda: db.fetch_value("SELECT pg_sleep(600)"))).get("/api/x")

    assert response.status_code == 504
    assert response.json() == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "The request took longer than it may.",
    }

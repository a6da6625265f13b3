"""JSON bodies: decoded, checked, limited."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from shared.web import Endpoint, Problem
from shared.web.body import MAX_BODY, read_body
from tests.shared.web.conftest import Serve

JSON = {"Content-Type": "application/json"}


@dataclass
class NewNote:
    title: str
    stars: int = 0


class Typed(TypedDict):
    title: str


class Struct(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    notes: list[NewNote] = []


@pytest.fixture
def client(serve: Serve) -> TestClient:
    """Return a client of an endpoint whose functions give back the body that they got."""
    note, anything = Endpoint("/api/notes/{id}"), Endpoint("/api/anything")
    typed, struct = Endpoint("/api/typed"), Endpoint("/api/struct")

    @note.put
    def replace(id: int, body: NewNote) -> Any:
        return [id, body.title, body.stars]

    @anything.post
    def take(body: Any) -> Any:
        return [body]

    @typed.post
    def take_typed(body: Typed) -> Any:
        return body

    @struct.patch
    def take_struct(body: Struct) -> Any:
        return [body.title, len(body.notes)]

    return serve(note, anything, typed, struct)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_a_body_comes_as_annotated(client: TestClient, content_type: str) -> None:
    body = '{"title": "é", "stars": 3, "unknown": null}'.encode()

    response = client.put("/api/notes/7", content=body, headers={"Content-Type": content_type})

    assert response.json() == [7, "é", 3]


def test_dataclasses_typed_dicts_structs_and_anything(client: TestClient) -> None:
    assert client.put("/api/notes/7", json={"title": "x"}).json() == [7, "x", 0]
    assert client.post("/api/typed", json={"title": "x"}).json() == {"title": "x"}
    assert client.patch("/api/struct", json={"title": "x", "notes": [{"title": "y"}]}).json() == ["x", 1]
    assert client.post("/api/anything", json=[1, None]).json() == [[1, None]]


@pytest.mark.parametrize(
    ("method", "path", "body", "where"),
    [
        ("PUT", "/api/notes/7", {"title": 5}, "$.title"),
        ("PUT", "/api/notes/7", {"title": "x", "stars": "many"}, "$.stars"),
        ("PUT", "/api/notes/7", {"stars": 1}, "title"),
        ("PUT", "/api/notes/7", [], "object"),
        ("PATCH", "/api/struct", {"title": "x", "notes": [{"title": "a"}, {"title": 5}]}, "$.notes[1].title"),
        ("PATCH", "/api/struct", {"title": "x", "other": 1}, "other"),
        ("POST", "/api/typed", {}, "title"),
    ],
)
def test_a_wrong_shape_is_told_with_its_place(
    client: TestClient, method: str, path: str, body: object, where: str
) -> None:
    response = client.request(method, path, json=body)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert where in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{'title': 'x'}", b'{"title": "x"} x', b'{"title": "\xff"}', b'"\\ud800"', b"[" * 500_000, b"NaN"],
)
def test_what_is_no_json_is_a_bad_request(client: TestClient, body: bytes) -> None:
    response = client.post("/api/anything", content=body, headers=JSON)

    assert response.status_code == 400
    assert response.json()["detail"] == "The body is not valid JSON."


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_taken(client: TestClient, content_type: str) -> None:
    response = client.put("/api/notes/7", content=b'{"title": "x"}', headers={"Content-Type": content_type})

    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["detail"]


def test_a_body_without_a_type_is_not_taken(client: TestClient) -> None:
    assert client.put("/api/notes/7", content=b'{"title": "x"}').status_code == 415


def test_a_body_may_be_as_large_as_the_limit_and_no_larger(client: TestClient) -> None:
    largest = json.dumps("x" * (MAX_BODY - 2)).encode()
    assert len(largest) == MAX_BODY

    assert client.post("/api/anything", content=largest, headers=JSON).status_code == 200
    response = client.post("/api/anything", content=largest + b" ", headers=JSON)

    assert response.status_code == 413
    assert str(MAX_BODY) in response.json()["detail"]


def receiving(*messages: Message) -> tuple[list[Message], Any]:
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    return left, receive


def test_a_body_is_put_together_from_its_parts() -> None:
    _, receive = receiving(
        {"type": "http.request", "body": b'{"a"', "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b": 1}"},
    )

    assert asyncio.run(read_body({"headers": [(b"content-type", b"application/json")]}, receive)) == b'{"a": 1}'


def test_no_more_is_read_of_a_body_that_is_too_large() -> None:
    part = {"type": "http.request", "body": b"x" * (MAX_BODY // 2 + 1), "more_body": True}
    left, receive = receiving(part, part, part, part)

    with pytest.raises(Problem) as caught:
        asyncio.run(read_body({"headers": [(b"content-type", b"application/json")]}, receive))

    assert caught.value.status == 413
    assert len(left) == 2


def test_a_body_that_broke_off_is_not_taken_for_complete() -> None:
    _, receive = receiving(
        {"type": "http.request", "body": b"12", "more_body": True},  # of 1234
        {"type": "http.disconnect"},
    )

    with pytest.raises(Problem) as caught:
        asyncio.run(read_body({"headers": [(b"content-type", b"application/json")]}, receive))

    assert caught.value.status == 400


def test_a_body_is_not_read_where_nobody_asks_for_it(serve: Serve) -> None:
    endpoint = Endpoint("/api/x")
    endpoint.post(lambda: "ok")

    assert serve(endpoint).post("/api/x", content=b"{", headers={"Content-Type": "text/plain"}).json() == "ok"


def test_the_path_is_looked_at_before_the_body(client: TestClient) -> None:
    assert client.put("/api/notes/x", content=b"{", headers=JSON).status_code == 404

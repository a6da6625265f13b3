"""The OpenAPI document says what the functions say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

from starlette.responses import Response

from functions import openapi
from shared.web import Endpoint, Reply, User
from shared.web.application import endpoints_in
from shared.web.openapi import document


@dataclass
class NewNote:
    text: str
    stars: int = 0


class Note(TypedDict):
    id: int
    text: str


def described(endpoint: Endpoint, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = document([endpoint], cookie="session")["paths"][endpoint.path][method]
    return operation


def statuses(operation: dict[str, Any]) -> list[str]:
    return [status for status in operation["responses"] if status != "default"]


def test_path_body_and_answer() -> None:
    endpoint = Endpoint("/api/notes/{id}/{key}")

    @endpoint.put
    def replace(id: int, key: UUID, body: NewNote, user: User) -> Annotated[Reply, Note]:
        """Answer 201 with the note; 409 where there is one."""
        raise NotImplementedError

    made = document([endpoint], cookie="session")
    operation = made["paths"]["/api/notes/{id}/{key}"]["put"]

    assert operation["summary"] == "Answer 201 with the note; 409 where there is one."
    assert operation["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
        {"name": "key", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
    ]
    assert operation["requestBody"] == {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewNote"}}},
    }
    assert made["components"]["schemas"]["NewNote"]["required"] == ["text"]
    assert statuses(operation) == ["201", "400", "401", "403", "404", "409", "413", "415", "422"]
    assert operation["responses"]["201"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Note"}}
    }
    assert list(operation["responses"]["409"]["content"]) == ["application/problem+json"]
    assert operation["security"] == [{"session": []}]
    assert made["components"]["securitySchemes"]["session"] == {"type": "apiKey", "in": "cookie", "name": "session"}


def test_what_is_not_said_is_what_happens() -> None:
    endpoint = Endpoint("/api/x")

    @endpoint.get
    def read() -> list[dict[str, Any]]:
        """List them."""
        raise NotImplementedError

    @endpoint.delete
    def remove() -> None:
        """Remove them."""

    @endpoint.post
    def stream() -> Response:
        """Stream them."""
        raise NotImplementedError

    @endpoint.put
    def health() -> Reply:
        """Answer 200, or 503 with the same body."""
        raise NotImplementedError

    listed = described(endpoint, "get")
    assert statuses(listed) == ["200"]
    assert listed["responses"]["200"]["content"]["application/json"]["schema"]["type"] == "array"
    assert "security" not in listed
    assert described(endpoint, "delete")["responses"]["204"] == {"description": "No Content"}
    assert described(endpoint, "post")["responses"]["200"]["content"] == {"*/*": {"schema": {}}}
    unavailable = described(endpoint, "put")["responses"]["503"]["content"]
    assert list(unavailable) == ["application/json", "application/problem+json"]


def test_types_that_json_does_not_know_are_anything() -> None:
    class Own:
        pass

    endpoint = Endpoint("/api/x/{own}")

    @endpoint.get
    def read(own: Own) -> Own:
        return own

    operation = described(endpoint, "get")
    assert operation["parameters"][0]["schema"] == {}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {}


def test_the_endpoint_describes_every_file() -> None:
    made = openapi._document("session")
    folder = Path(openapi.__file__).parent

    assert set(made["paths"]) == {endpoint.path for endpoint in endpoints_in(folder, "functions")}
    operations = [operation for path in made["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"].startswith("Answer 2"), f"{operation['operationId']} does not say what it answers"

"""The endpoint that README shows works as it stands."""

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shared import db
from shared.web import sessions
from shared.web.application import application, endpoints_in

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolled_back: None) -> Iterator[TestClient]:
    code = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    package = tmp_path / "readme_functions"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plans.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    with TestClient(application(endpoints_in(package, package.name))) as client:
        yield client
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def sign_in(client: TestClient, role: str) -> None:
    token = sessions.new_token()
    user = db.fetch_value(
        "INSERT INTO users (email, password_hash, role) VALUES (%(email)s, %(hash)s, %(role)s) RETURNING id",
        {"email": f"readme-{role}@example.com", "hash": "$argon2id$v=19$none", "role": role},
    )
    db.execute(
        "INSERT INTO sessions (user_id, token_hash, expires_at) VALUES (%(user)s, %(hash)s, now() + interval '1 hour')",
        {"user": user, "hash": hashlib.sha256(token.encode()).digest()},
    )
    client.cookies.set("session", token)


def test_the_endpoint_of_the_readme_works(client: TestClient) -> None:
    plan = db.fetch_one("SELECT id, code, name FROM plans ORDER BY id LIMIT 1")
    assert plan is not None
    path = f"/api/plans/{plan['id']}"
    assert client.get(path).json() == plan
    assert client.patch(path, json={"name": "Renamed"}).status_code == 401
    sign_in(client, "user")
    assert client.patch(path, json={"name": "Renamed"}).status_code == 403
    sign_in(client, "admin")
    assert client.patch(path, json={"name": "Renamed"}).status_code == 204
    assert client.get(path).json() == {**plan, "name": "Renamed"}
    assert client.get("/api/plans/0").status_code == 404
    wrong = client.patch(path, json={"name": 5})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")

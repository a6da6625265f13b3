"""The endpoint that README shows works as it stands."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shared import db
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


def test_the_endpoint_of_the_readme_works(client: TestClient) -> None:
    plan = db.fetch_one("SELECT id, code, name FROM plans ORDER BY id LIMIT 1")
    assert plan is not None
    path = f"/api/plans/{plan['id']}"
    assert client.get(path).json() == plan
    assert client.patch(path, json={"name": "Renamed"}).status_code == 204
    assert client.get(path).json() == {**plan, "name": "Renamed"}
    assert client.get("/api/plans/0").status_code == 404
    wrong = client.patch(path, json={"name": 5})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")

"""What docs/ACCESS.md shows works as it stands, and its numbers are those of the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import functions
from shared import db
from shared.web import User, auth, sessions, throttle
from shared.web.application import application, endpoints_in
from tests import canary
from tests.access import Browser, add_person

PAGE = (Path(__file__).parents[2] / "docs" / "ACCESS.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(?:python|sql)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.usefixtures("cheap_hashes", "rolled_back")


def block(beginning: str) -> str:
    """Give the one code block of the page that begins so."""
    (found,) = [code for code in BLOCKS if code.startswith(beginning)]
    return str(found)


def run_sql(beginning: str) -> None:
    for statement in block(beginning).split(";\n"):
        if statement.strip():
            db.execute(statement)  # type: ignore[arg-type, unused-ignore]


def person(identifier: int) -> User:
    return User(id=identifier, email="x@example.com", role="user", must_change_password=False, session_id=1)


@pytest.fixture
def notes() -> list[int]:
    """Give two people a note each; return the people's ids, which are the notes' too."""
    run_sql("CREATE TABLE notes")
    people = [add_person(), add_person("bob@example.com")]
    for identifier in people:
        db.execute(
            "INSERT INTO notes (id, user_id, text) OVERRIDING SYSTEM VALUE VALUES (%(id)s, %(id)s, 'Buy milk')",
            {"id": identifier},
        )
    return people


@pytest.fixture
def client(notes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "notes.py").write_text(block('"""One\'s own notes'), "utf-8")
    monkeypatch.setattr(functions, "__path__", [*functions.__path__, str(folder)])
    with TestClient(application(endpoints_in(folder, "functions"))) as client:
        yield client
    sys.modules.pop("functions.notes", None)
    vars(functions).pop("notes", None)


def test_the_protected_endpoint(client: TestClient, notes: list[int], browser: Browser) -> None:
    mine, other = (f"/api/notes/{identifier}" for identifier in notes)
    assert client.get(mine).status_code == 401
    browser.sign_in()
    client.cookies.update(browser.jar)

    assert client.get(mine).json()["text"] == "Buy milk"
    assert client.get(other).status_code == 404
    assert client.put(mine, json={"text": "Drink it"}).status_code == 204
    assert client.put(other, json={"text": "Drink it"}).status_code == 404
    assert client.get(mine).json()["text"] == "Drink it"
    assert client.delete(mine).status_code == 403
    db.execute("UPDATE users SET role = 'admin' WHERE id = %(id)s", {"id": notes[0]})
    assert client.delete(other).status_code == 204


def test_rows_of_one_s_own(notes: list[int]) -> None:
    run_sql("ALTER TABLE notes ENABLE")
    namespace: dict[str, Any] = {"db": db, "User": User}
    exec(block("def notes_of"), namespace)

    for identifier in notes:
        assert [note["id"] for note in namespace["notes_of"](person(identifier))] == [identifier]
    db.execute("SELECT set_config('app.user_id', '', false)")  # what is left once a transaction has ended
    assert db.fetch_all("SELECT id FROM notes") == []


def test_adding_a_person(browser: Browser) -> None:
    namespace: dict[str, Any] = {}
    exec(block("from shared import db\nfrom shared.web.auth"), namespace)
    namespace["add_person"]("carol@example.com", canary.PASSWORD)

    assert browser.sign_in(email="carol@example.com").body["must_change_password"] is True


def test_the_numbers_are_those_of_the_code() -> None:
    limits = re.findall(r"^\| (?:One|Everything).*\| (\d+) \|$", PAGE, re.MULTILINE)
    assert [int(limit) for limit in limits] == [throttle.ACCOUNT_FROM_ADDRESS, throttle.ADDRESS, throttle.ACCOUNT]
    assert f"| Attempts in {throttle.MINUTES} minutes |" in PAGE
    text = " ".join(PAGE.split())
    assert f"ends {sessions.LIFETIME.days} days after its beginning, or {sessions.IDLE.days} days after" in text
    assert f"has {auth.MINIMUM_LENGTH} to {auth.MAXIMUM_LENGTH} characters" in text
    assert f"waits longer than {auth._PATIENCE:g} seconds" in text
    assert sessions.PASSWORD_CHANGE_REQUIRED in PAGE


def test_the_table_of_endpoints_is_that_of_the_app(browser: Browser) -> None:
    operations = {
        f"{method.upper()} {path}"
        for path, item in browser.get("/api/openapi").body["paths"].items()
        for method in item
        if path.startswith(("/api/auth/", "/api/plans", "/api/subscription", "/api/openapi"))
    }
    assert set(re.findall(r"^\| `([A-Z]+ /api/[\w/]+)` \|", PAGE, re.MULTILINE)) == operations

"""Endpoints that ask for `user`: who may call them, and in which order things are looked at."""

from dataclasses import dataclass
from typing import Any

import pytest

from shared import db
from shared.web import Admin, Endpoint, SignedIn, User
from tests import access
from tests.access import Browser, add_person
from tests.shared.web.conftest import Serve

EVERYBODY = {"SignedIn": SignedIn, "User": User, "Admin": Admin}


@dataclass
class Note:
    text: str


@pytest.fixture
def browser(rolled_back: None, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """Return the browser of an ordinary user."""
    with access.cheap_hashes():
        add_person()
        browser = access.browser("server", monkeypatch)
        assert browser.sign_in().status == 200
    return browser


@pytest.fixture
def ask(browser: Browser, serve: Serve) -> Any:
    """Call an endpoint for each kind of person, with the browser's session: ask("Admin")."""

    def make(kind: type[SignedIn]) -> Endpoint:
        endpoint = Endpoint("/api/x")

        @endpoint.get
        def read(user: kind) -> Any:  # type: ignore[valid-type]
            return [type(user).__name__, user.email]  # type: ignore[attr-defined]

        @endpoint.post
        def write(body: Note, user: kind) -> Any:  # type: ignore[valid-type]
            return body.text

        return endpoint

    clients = {name: serve(make(kind)) for name, kind in EVERYBODY.items()}

    def ask(kind: str, method: str = "GET", **options: Any) -> Any:
        cookie = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
        return clients[kind].request(
            method, "/api/x", headers={"cookie": cookie, **options.pop("headers", {})}, **options
        )

    return ask


def change(assignment: str) -> None:
    db.execute(f"UPDATE users SET {assignment} WHERE lower(email) = lower('{access.EMAIL}')")  # type: ignore[arg-type, unused-ignore]


@pytest.mark.parametrize(
    ("assignment", "statuses"),
    [
        ("role = 'user'", {"SignedIn": 200, "User": 200, "Admin": 403}),
        ("role = 'admin'", {"SignedIn": 200, "User": 200, "Admin": 200}),
        ("must_change_password = true", {"SignedIn": 200, "User": 403, "Admin": 403}),
        ("role = 'admin', must_change_password = true", {"SignedIn": 200, "User": 403, "Admin": 403}),
    ],
)
def test_the_annotation_says_who_may_call(ask: Any, assignment: str, statuses: dict[str, int]) -> None:
    change(assignment)
    assert {kind: ask(kind).status_code for kind in EVERYBODY} == statuses


def test_the_function_gets_what_it_asked_for(ask: Any) -> None:
    assert ask("User").json() == ["User", access.EMAIL]


def test_a_role_that_is_taken_away_counts_at_once(ask: Any) -> None:
    change("role = 'admin'")
    assert ask("Admin").status_code == 200
    change("role = 'user'")
    assert ask("Admin").status_code == 403


def test_who_may_not_call_learns_nothing_of_bodies(ask: Any, browser: Browser) -> None:
    assert ask("User", "POST", json={"text": 5}).status_code == 422
    assert ask("Admin", "POST", json={"text": 5}).status_code == 403
    browser.jar = {}
    assert ask("User", "POST", json={"text": 5}).status_code == 401


def test_a_stranger_s_page_may_not_use_the_cookie(ask: Any) -> None:
    strange = {"headers": {"sec-fetch-site": "cross-site"}}
    assert ask("User", "POST", json={"text": "x"}, **strange).status_code == 403
    assert ask("User", "POST", json={"text": "x"}).json() == "x"
    assert ask("User", **strange).status_code == 200


def test_a_parameter_of_the_path_may_be_called_user(serve: Serve) -> None:
    endpoint = Endpoint("/api/{user}")

    @endpoint.get
    def read(user: int) -> int:
        return user

    assert serve(endpoint).get("/api/7").json() == 7


@pytest.mark.parametrize("annotation", [int, None, "SignedIn | None"])
def test_any_other_annotation_is_a_mistake(annotation: Any) -> None:
    def read(user: Any) -> None: ...

    read.__annotations__["user"] = annotation
    with pytest.raises(TypeError, match="read must annotate user with SignedIn, User or Admin"):
        Endpoint("/api/x").get(read)

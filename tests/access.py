"""Browsers for tests of access: one that talks to the app as a server or Vercel runs it, one to the Lambda handler."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

import app
from shared import db
from shared.settings import reset_settings
from shared.web import auth
from shared.web.application import application
from tests import canary

Platform = Literal["server", "vercel", "lambda"]
PLATFORMS: tuple[Platform, ...] = ("server", "vercel", "lambda")
ADDRESS = "192.0.2.7"
EMAIL = "Ada@example.com"

# 1 of the 65,536 KiB that a hash takes otherwise: most tests are about something else.
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@contextmanager
def cheap_hashes(hasher: Any = CHEAP) -> Iterator[None]:
    """Hash with parameters that cost nothing, in the block."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(auth, "hasher", lambda: hasher)
        auth._nobodys_hash.cache_clear()
        yield
    auth._nobodys_hash.cache_clear()


class Answer(NamedTuple):
    status: int
    body: Any  # decoded JSON; None where there is none
    headers: dict[str, str]
    cookies: list[str]  # as Set-Cookie has them


class Browser:
    """Somebody's browser: it keeps cookies, says where it comes from, and checks each answer as it must be."""

    def __init__(
        self, send: Callable[[str, str, dict[str, str], bytes | None], Answer], address: str = ADDRESS
    ) -> None:
        self._send = send
        self.address = address
        self.jar: dict[str, str] = {}

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """Send a request with `body` as JSON, or with `raw` as it is."""
        sent = {"user-agent": "Mozilla/5.0 (tests)", "x-vercel-forwarded-for": self.address, **(headers or {})}
        if body is not None:
            raw = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        if self.jar:
            sent.setdefault("cookie", "; ".join(f"{name}={value}" for name, value in self.jar.items()))
        answer = self._send(method, path, sent, raw)
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.jar[name] = canary.watch(value) if value else value
            if not value:
                del self.jar[name]
        if answer.status >= 400 and answer.headers.get("content-type") != "application/json":
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.body["status"] == answer.status
        assert canary.found_in(json.dumps(answer.body)) is None
        return answer

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return self.ask("POST", path, body, **options)

    def sign_in(self, password: str = canary.PASSWORD, email: str = EMAIL) -> Answer:
        return self.post("/api/auth/login", {"email": email, "password": password})

    def who(self) -> str | None:
        """Give the address of whoever is signed in."""
        answer = self.get("/api/auth/me")
        assert answer.status in (200, 401)
        return answer.body["email"] if answer.status == 200 else None


def through_asgi(base_url: str, address: str = ADDRESS) -> Callable[[str, str, dict[str, str], bytes | None], Answer]:
    """Send requests to the app as a server or Vercel's runtime does."""
    client = TestClient(application(app.endpoints), base_url=base_url, client=(address, 50000))

    def send(method: str, path: str, headers: dict[str, str], raw: bytes | None) -> Answer:
        client.cookies.clear()  # the browser keeps its own
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        response = client.request(method, path, headers=encoded, content=raw)
        cookies = response.headers.get_list("set-cookie")
        return Answer(
            response.status_code, response.json() if response.content else None, dict(response.headers), cookies
        )

    return send


class Context:
    """Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int:
        return 28_000


def event(method: str, path: str, headers: Mapping[str, str], raw: bytes | None, address: str) -> dict[str, Any]:
    """Make an HTTP API's event (payload 2.0): cookies apart from the headers, and the body in base64."""
    sent = {"host": "api.example.com", "x-forwarded-proto": "https", **headers}
    cookies = sent.pop("cookie", None)
    made: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": sent,
        "requestContext": {
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": address,
                "userAgent": sent.get("user-agent", ""),
            },
            "stage": "$default",
        },
        "isBase64Encoded": raw is not None,
    }
    if cookies is not None:
        made["cookies"] = cookies.split("; ")
    if raw is not None:
        made["body"] = base64.b64encode(raw).decode()
    return made


def through_lambda(method: str, path: str, headers: dict[str, str], raw: bytes | None) -> Answer:
    """Send a request to the handler as API Gateway does."""
    address = headers.get("x-vercel-forwarded-for", ADDRESS)
    answer = app.handler(event(method, path, headers, raw, address), Context())
    assert answer["isBase64Encoded"] is False
    assert "set-cookie" not in answer["headers"], "API Gateway wants them apart"
    body = json.loads(answer["body"]) if answer["body"] else None
    return Answer(answer["statusCode"], body, answer["headers"], answer.get("cookies", []))


def browser(platform: Platform, monkeypatch: pytest.MonkeyPatch, address: str = ADDRESS) -> Browser:
    """Open a browser on the app as a platform runs it, with what that platform sets."""
    if platform == "lambda":
        return Browser(through_lambda, address)
    if platform == "vercel":
        monkeypatch.setenv("VERCEL", "1")
        reset_settings()
        return Browser(through_asgi("https://app.example.com", "10.0.0.1"), address)
    return Browser(through_asgi("http://localhost:3000", address), address)


def add_person(
    email: str = EMAIL, password: str = canary.PASSWORD, *, role: str = "user", must_change_password: bool = False
) -> int:
    """Add somebody who may sign in, and give the id."""
    identifier: int = db.fetch_value(
        """
        INSERT INTO users (email, password_hash, role, must_change_password)
        VALUES (%(email)s, %(password_hash)s, %(role)s, %(must_change_password)s) RETURNING id
        """,
        {
            "email": email,
            "password_hash": auth.hash_password(password),
            "role": role,
            "must_change_password": must_change_password,
        },
    )
    return identifier

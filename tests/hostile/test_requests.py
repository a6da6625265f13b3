"""Requests that nobody means well with, as servers and as Lambda hand them over: an answer each time, never a 5xx."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import app
from functions import openapi
from shared import db
from shared.settings import reset_settings
from shared.web import throttle
from shared.web.application import application
from tests import access, canary
from tests.access import Context
from tests.hostile.effort import hard, keep_at

TOKEN = canary.watch("A1" + "x" * 41)
PATHS = sorted(endpoint.path for endpoint in app.endpoints if endpoint.path != "/api/health")

# -- what is sent -----------------------------------------------------------------------------------

mostly = st.sampled_from([True, True, True, False])
bytes_of_a_header = st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\0"))  # no server lets these in
names = st.one_of(
    st.sampled_from(
        "accept authorization content-length content-type cookie expect forwarded host if-none-match origin range "
        "sec-fetch-site sec-fetch-mode transfer-encoding user-agent x-forwarded-for x-forwarded-proto "
        "x-vercel-forwarded-for x-http-method-override".split()
    ),
    st.from_regex(r"[a-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True),
)
values = st.one_of(
    bytes_of_a_header,
    st.sampled_from(
        [b"application/json", b"application/json; charset=utf-16", b"null", b"https://[", b"same-origin", b"cross-site"]
    ),
    st.just(f"session={TOKEN}".encode()),
    st.text(max_size=30).map(lambda text: ("session=" + text).encode().translate(None, b"\r\n\0")),
)
headers = st.lists(st.tuples(names.map(str.encode), values), max_size=6)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
long_texts = st.integers(0, 3000).map(lambda length: "ä" * length)
texts = st.one_of(
    st.text(max_size=40),
    long_texts,
    st.sampled_from(
        [access.EMAIL, "free", "\0", "a\0@b", "\ud800", "' OR 1=1 --", "%(email)s", "%s%%", "\\x00", "\u2028"]
    ),
)
FIELDS = ("email", "password", "new_password", "plan")
well_formed = st.fixed_dictionaries(dict.fromkeys(FIELDS, texts))
shapes = st.fixed_dictionaries({}, optional={**dict.fromkeys(FIELDS, texts | json_values), "other": json_values})
odd_bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 100_000, b'{"email":' * 20_000, b'{"email":"\xed\xa0\x80"}', b"\xef\xbb\xbf{}", b"1e999"]),
)
bodies = mostly.flatmap(
    lambda usual: (well_formed | shapes).map(lambda shape: json.dumps(shape).encode()) if usual else odd_bodies
)
paths = st.one_of(
    st.sampled_from(PATHS),
    st.builds(lambda path, more: path + more, st.sampled_from(PATHS), st.text(max_size=10)),
    st.text(max_size=40).map(lambda text: "/" + text),
)
methods = st.one_of(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]),
    st.from_regex(r"[A-Z]{1,10}", fullmatch=True),
)
# Mostly what there is: otherwise hardly a request would get past the router.
OPERATIONS = [
    (method, path)
    for path in PATHS
    for method in ("GET", "POST", "DELETE")
    if method.lower() in openapi._document("session")["paths"][path]
]
targets = mostly.flatmap(lambda usual: st.sampled_from(OPERATIONS) if usual else st.tuples(methods, paths))
usual = st.tuples(mostly, mostly)  # whether there is a session, and whether the body is said to be JSON


def usual_headers(cookie: str, chosen: tuple[bool, bool]) -> dict[str, str]:
    signed_in, is_json = chosen
    return {**({"cookie": cookie} if signed_in else {}), **({"content-type": "application/json"} if is_json else {})}


# -- who answers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(endpoint_database: str) -> Iterator[None]:
    """Answer on a database of its own, with somebody signed in, as often as is asked."""
    with pytest.MonkeyPatch.context() as monkeypatch, access.cheap_hashes():
        monkeypatch.setenv("DATABASE_URL", endpoint_database)
        monkeypatch.setenv("APP_ENV", "test")
        for limit in ("ACCOUNT_FROM_ADDRESS", "ADDRESS", "ACCOUNT"):
            monkeypatch.setattr(throttle, limit, 1_000_000)
        reset_settings()
        yield


@pytest.fixture(autouse=True)
def on_target(target: None, endpoint_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test's own clean environment lead to the database; leave nothing in it."""
    monkeypatch.setenv("DATABASE_URL", endpoint_database)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    yield
    db.execute("DELETE FROM users WHERE role = 'user'")
    db.execute("DELETE FROM throttles")


def sign_in_again() -> None:
    """Make sure that TOKEN is somebody's session: the request before may have ended it."""
    db.execute(
        """
        WITH person AS (
            INSERT INTO users (email, password_hash) VALUES (%(email)s, '$argon2id$none')
            ON CONFLICT ((lower(email))) DO UPDATE SET email = excluded.email RETURNING id
        )
        INSERT INTO sessions (user_id, token_hash, expires_at)
        SELECT id, %(token_hash)s, now() + interval '1 day' FROM person
        ON CONFLICT (token_hash) DO NOTHING
        """,
        {"email": access.EMAIL, "token_hash": hashlib.sha256(TOKEN.encode()).digest()},
    )


def check(status: int, body: bytes, content_type: str) -> None:
    assert 200 <= status < 500, body
    assert b"Traceback" not in body
    assert canary.found_in(body.decode("utf-8", "replace")) is None
    if body and content_type.startswith("text/html"):  # the operator's page
        assert status < 400
    elif body:
        assert content_type in ("application/json", "application/problem+json") or status < 400
        document = json.loads(body)
        assert status < 400 or document["status"] == status


async def ask(scope: dict[str, Any], body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request as a server does, and return its answer."""
    sent: list[Any] = []
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(application(app.endpoints)(scope, receive, send), 30)
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in rest)


def test_over_asgi() -> None:
    with asyncio.Runner() as runner:

        @hard
        @given(targets, headers, bodies, usual, st.binary(max_size=20))
        def attack(
            target: tuple[str, str],
            sent: list[tuple[bytes, bytes]],
            body: bytes,
            chosen: tuple[bool, bool],
            query: bytes,
        ) -> None:
            method, path = target
            sign_in_again()
            for name, value in usual_headers(f"session={TOKEN}", chosen).items():
                sent = [*sent, (name.encode(), value.encode())]
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": path,
                "raw_path": path.encode("utf-8", "replace"),
                "query_string": query,
                "root_path": "",
                "headers": sent,
                "client": ("192.0.2.7", 50000),
                "server": ("127.0.0.1", 3000),
            }
            status, answered, received = runner.run(ask(scope, body))
            check(status, received, answered.get(b"content-type", b"").decode())

        keep_at(attack)


def test_over_lambda() -> None:
    @hard
    @given(targets, headers, bodies, usual, st.sampled_from(["192.0.2.7", "2001:db8::7", "x", ""]))
    def attack(
        target: tuple[str, str],
        sent: list[tuple[bytes, bytes]],
        body: bytes,
        chosen: tuple[bool, bool],
        address: str,
    ) -> None:
        method, path = target
        sign_in_again()
        # API Gateway finds the API by the host, so it is none that anybody makes up.
        named = {name.decode(): value.decode("latin-1") for name, value in sent if name != b"host"}
        named |= usual_headers(f"__Host-session={TOKEN}", chosen)
        answer = app.handler(access.event(method, path, named, body, address), Context())
        json.dumps(answer)
        check(answer["statusCode"], answer.get("body", "").encode(), answer["headers"].get("content-type", ""))

    keep_at(attack)


def test_the_session_was_really_used() -> None:
    """Else all of the above would have ended at 401."""
    sign_in_again()
    for cookie in (f"session={TOKEN}", f"x=1; session={TOKEN}; y"):
        headers = {"cookie": cookie}
        assert (
            access.Browser(access.through_asgi("http://localhost")).get("/api/auth/me", headers=headers).status == 200
        )

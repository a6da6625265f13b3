"""Signing in, out and everywhere out, changing a password, and every refusal."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Literal

import pytest
from argon2 import PasswordHasher

from shared import db
from shared.settings import DEFAULT_ADMIN_PASSWORD, reset_settings
from shared.web import auth
from shared.web.body import MAX_BODY
from shared.web.sessions import PASSWORD_CHANGE_REQUIRED
from tests import access
from tests.access import EMAIL, Browser, Platform, add_person
from tests.canary import NEW_PASSWORD, PASSWORD
from tests.functions.conftest import Open

ADMIN = "admin@example.com"
ME = {"email": EMAIL, "role": "user", "must_change_password": False}


def without_id(account: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in account.items() if name != "id"}


# -- the whole life ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("rolled_back")
def test_the_first_admin_from_sign_in_to_sign_out(
    open_browser: Open, platform: Platform, request: pytest.FixtureRequest
) -> None:
    """With the password that the seed gives; on a server with argon2's real parameters."""
    if platform != "server":
        request.getfixturevalue("cheap_hashes")
    browser, other = open_browser(), open_browser()
    assert browser.get("/api/auth/me").status == 401
    assert other.sign_in(DEFAULT_ADMIN_PASSWORD, ADMIN).status == 200

    signed_in = browser.sign_in(DEFAULT_ADMIN_PASSWORD, ADMIN)
    assert signed_in.status == 200
    assert without_id(signed_in.body) == {"email": ADMIN, "role": "admin", "must_change_password": True}
    assert browser.get("/api/auth/me").body == signed_in.body

    for method, path in (("GET", "/api/auth/sessions"), ("GET", "/api/subscription"), ("DELETE", "/api/subscription")):
        refused = browser.ask(method, path)
        assert (refused.status, refused.body["type"]) == (403, PASSWORD_CHANGE_REQUIRED)
        assert refused.body["title"] == "Password change required"

    change = {"password": DEFAULT_ADMIN_PASSWORD, "new_password": NEW_PASSWORD}
    before = dict(browser.jar)
    changed = browser.post("/api/auth/password", change)
    assert (changed.status, changed.body["must_change_password"]) == (200, False)
    assert browser.jar != before
    assert browser.who() == ADMIN
    assert other.who() is None, "the other session has ended"
    browser.jar, now = before, browser.jar
    assert browser.who() is None, "the token from before the change is worth nothing"
    browser.jar = now
    assert [session["is_this"] for session in browser.get("/api/auth/sessions").body] == [True]

    assert browser.post("/api/auth/logout").status == 204
    assert browser.jar == {}
    browser.jar = now
    assert browser.who() is None, "the session is gone, not only its cookie"

    assert browser.sign_in(DEFAULT_ADMIN_PASSWORD, ADMIN).status == 401
    assert browser.sign_in(NEW_PASSWORD, ADMIN.upper()).status == 200


@pytest.mark.usefixtures("cheap_hashes", "rolled_back")
class TestCookies:
    def test_of_each_platform(self, open_browser: Open, platform: Platform) -> None:
        add_person()
        browser = open_browser()

        begun = browser.sign_in().cookies
        ended = browser.post("/api/auth/logout").cookies

        secure = platform != "server"
        name = "__Host-session" if secure else "session"
        attributes = f"Path=/; {'Secure; ' if secure else ''}HttpOnly; SameSite=Lax"
        assert len(begun) == 1
        assert re.fullmatch(rf"{name}=[\w-]{{43}}; Max-Age=2592000; {attributes}", begun[0], re.ASCII)
        assert ended == [f"{name}=; Max-Age=0; {attributes}"]

    def test_in_production_are_secure_behind_a_proxy_that_speaks_http(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_person()
        monkeypatch.setenv("APP_ENV", "production")
        reset_settings()

        assert browser.sign_in().cookies[0].startswith("__Host-session=")
        assert browser.who() == EMAIL

    @pytest.mark.parametrize(
        "cookie",
        [
            "session=",
            "session=x",
            "session=" + "A" * 43,
            "session=" + "A" * 5000,
            "session=%00; session",
            "=; ;;session==",
            'session="' + "A" * 43 + '"',
            "session=\xe9" + "A" * 42,
        ],
    )
    def test_that_are_none_of_ours_are_nobody_s(self, browser: Browser, cookie: str) -> None:
        assert browser.get("/api/auth/me", headers={"cookie": cookie}).status == 401
        assert browser.post("/api/auth/logout", headers={"cookie": cookie}).status == 204


@pytest.mark.usefixtures("cheap_hashes", "rolled_back")
class TestSessions:
    def test_hold_a_hash_and_where_they_began(self, open_browser: Open) -> None:
        add_person()
        browser = open_browser("2001:db8::7")
        browser.sign_in()

        rows = db.fetch_all(
            "SELECT token_hash, host(ip_address) AS ip, user_agent, expires_at - created_at AS l FROM sessions"
        )

        (token,) = browser.jar.values()
        assert [bytes(row["token_hash"]) for row in rows] == [hashlib.sha256(token.encode()).digest()]
        assert (rows[0]["ip"], rows[0]["user_agent"], rows[0]["l"].days) == ("2001:db8::7", "Mozilla/5.0 (tests)", 30)

    def test_are_listed_without_their_tokens(self, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        add_person()
        other = access.browser("server", monkeypatch, "192.0.2.9")
        other.sign_in()
        browser.sign_in()

        listed = browser.get("/api/auth/sessions").body

        assert [(session["ip_address"], session["is_this"]) for session in listed] == [
            (access.ADDRESS, True),
            ("192.0.2.9", False),
        ]
        assert set(listed[0]) == {"id", "ip_address", "user_agent", "created_at", "last_seen_at", "is_this"}

    def test_rotate_at_sign_in(self, browser: Browser) -> None:
        add_person()
        browser.sign_in()
        before = dict(browser.jar)
        browser.sign_in()

        assert browser.jar != before
        assert db.fetch_value("SELECT count(*) FROM sessions") == 1

    def test_cannot_be_fixed_by_who_sends_a_cookie(self, browser: Browser) -> None:
        """A token that an attacker planted in the browser is not the one that the sign-in makes valid."""
        add_person()
        browser.jar = {"session": "A" * 43}
        browser.sign_in()

        assert browser.jar["session"] != "A" * 43

    def test_end_everywhere(self, open_browser: Open) -> None:
        add_person()
        add_person("bob@example.com")
        browser, other, bob = open_browser(), open_browser(), open_browser()
        for one in (browser, other):
            one.sign_in()
        bob.sign_in(email="bob@example.com")

        answer = browser.ask("DELETE", "/api/auth/sessions")

        assert (answer.status, browser.jar) == (204, {})
        assert (other.who(), bob.who()) == (None, "bob@example.com")

    @pytest.mark.parametrize(
        ("change", "lives"),
        [
            ("last_seen_at = now() - interval '7 days' + interval '1 minute'", True),
            ("last_seen_at = now() - interval '7 days'", False),
            ("created_at = now() - interval '30 days', expires_at = now() + interval '1 minute'", True),
            ("created_at = now() - interval '30 days', expires_at = now()", False),
        ],
    )
    def test_end_unused_and_by_their_age(self, browser: Browser, change: str, lives: bool) -> None:
        add_person()
        browser.sign_in()
        db.execute(f"UPDATE sessions SET {change}")  # type: ignore[arg-type, unused-ignore]

        assert browser.who() == (EMAIL if lives else None)

    def test_note_their_use_once_an_hour(self, browser: Browser) -> None:
        add_person()
        browser.sign_in()
        for minutes, expected in ((59, 59), (61, 0)):
            db.execute("UPDATE sessions SET last_seen_at = now() - make_interval(mins => %(m)s)", {"m": minutes})
            browser.who()
            behind = "SELECT extract(epoch FROM now() - last_seen_at)::int / 60 FROM sessions"
            assert db.fetch_value(behind) == expected

    @pytest.mark.parametrize("off", [(), ("hashjoin", "mergejoin", "hashagg", "sort", "material")])
    def test_that_are_over_are_removed_by_the_next_sign_in(self, browser: Browser, off: tuple[str, ...]) -> None:
        """A hundred of each, whatever plan the statistics lead to; a nested loop once removed all."""
        for plan in off:
            db.execute(f"SET LOCAL enable_{plan} = off")  # type: ignore[arg-type, unused-ignore]
        identifier = add_person()
        db.execute(
            """
            INSERT INTO sessions (user_id, token_hash, created_at, expires_at)
            SELECT %(id)s, sha256(n::text::bytea), now() - interval '31 days', now() - interval '1 day'
            FROM generate_series(1, 150) AS n
            """,
            {"id": identifier},
        )
        db.execute("INSERT INTO throttles SELECT sha256(n::text::bytea), 1, now() FROM generate_series(1, 150) AS n")
        db.execute("UPDATE throttles SET expires_at = now() - interval '1 second'")

        browser.sign_in()

        assert db.fetch_value("SELECT count(*) FROM sessions") == 50 + 1
        assert db.fetch_value("SELECT count(*) FROM throttles") == 50 + 3

    def test_go_with_their_person(self, browser: Browser) -> None:
        add_person()
        browser.sign_in()
        db.execute("DELETE FROM users WHERE email = %(email)s", {"email": EMAIL})

        assert browser.who() is None


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap_hashes", "rolled_back")
class TestRefusals:
    def test_an_unknown_address_and_a_wrong_password_look_the_same(self, open_browser: Open) -> None:
        add_person()
        browser = open_browser()

        wrong, unknown = browser.sign_in("wrong"), browser.sign_in("wrong", "nobody@example.com")

        assert wrong.status == unknown.status == 401
        assert wrong.body == unknown.body
        assert wrong.headers["www-authenticate"] == "Cookie"
        assert wrong.cookies == unknown.cookies == []

    def test_an_unknown_address_costs_a_hash_too(self, browser: Browser) -> None:
        add_person()
        verified: list[str] = []

        class Spy(PasswordHasher):
            def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
                verified.append(str(hash).rpartition("$")[0].rpartition("$")[0])
                return access.CHEAP.verify(hash, password)

        with access.cheap_hashes(Spy(time_cost=1, memory_cost=8, parallelism=1)):
            browser.sign_in("wrong")
            browser.sign_in("wrong", "nobody@example.com")

        assert verified == ["$argon2id$v=19$m=8,t=1,p=1"] * 2

    @pytest.mark.parametrize(
        ("path", "body", "field"),
        [
            ("/api/auth/login", {"email": EMAIL}, "`password`"),
            ("/api/auth/login", {"password": "x"}, "`email`"),
            ("/api/auth/login", {"email": 5, "password": "x"}, "$.email"),
            ("/api/auth/login", {"email": EMAIL, "password": None}, "$.password"),
            ("/api/auth/login", [], "object"),
            ("/api/auth/login", {"email": EMAIL, "password": "x" * 1025}, "password is longer than 1024"),
            ("/api/auth/login", {"email": "x" * 255, "password": "x"}, "email is longer than 254"),
            ("/api/auth/password", {"password": "x"}, "`new_password`"),
            ("/api/auth/password", {"password": "wrong", "new_password": NEW_PASSWORD}, "password is not the present"),
            (
                "/api/auth/password",
                {"password": PASSWORD, "new_password": PASSWORD},
                "new_password is the same as password",
            ),
            ("/api/auth/password", {"password": PASSWORD, "new_password": "elevenchars"}, "shorter than 12"),
            ("/api/auth/password", {"password": PASSWORD, "new_password": "x" * 1025}, "new_password is longer"),
            ("/api/auth/password", {"password": PASSWORD, "new_password": EMAIL.upper()}, "is the e-mail address"),
            ("/api/auth/password", {"password": PASSWORD, "new_password": DEFAULT_ADMIN_PASSWORD}, "default"),
            ("/api/subscription", {}, "`plan`"),
            ("/api/subscription", {"plan": "no such plan"}, "plan is none of those on offer"),
        ],
    )
    def test_what_is_wrong_is_named(self, browser: Browser, path: str, body: object, field: str) -> None:
        add_person()
        browser.sign_in()

        answer = browser.post(path, body)

        assert answer.status == 422
        assert field in answer.body["detail"]
        assert browser.who() == EMAIL

    @pytest.mark.parametrize("path", ["/api/auth/login", "/api/auth/password", "/api/subscription"])
    def test_bodies_that_are_none(self, open_browser: Open, path: str) -> None:
        add_person()
        browser = open_browser()
        browser.sign_in()
        as_json = {"content-type": "application/json"}

        assert browser.post(path, raw=b"{", headers=as_json).status == 400
        assert (
            browser.post(path, raw=b'{"email": "\xff", "password": "\xff", "plan": "\xff"}', headers=as_json).status
            == 400
        )
        assert browser.post(path, raw=b" " * (MAX_BODY + 1), headers=as_json).status == 413
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert browser.post(path, raw=b"email=x&password=y", headers=form).status == 415
        assert browser.post(path).status == 415

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/auth/me"),
            ("POST", "/api/auth/password"),
            ("GET", "/api/auth/sessions"),
            ("DELETE", "/api/auth/sessions"),
            ("GET", "/api/subscription"),
            ("POST", "/api/subscription"),
            ("DELETE", "/api/subscription"),
        ],
    )
    def test_who_is_not_signed_in(self, open_browser: Open, method: str, path: str) -> None:
        answer = open_browser().ask(method, path, {"not": "looked at"} if method == "POST" else None)

        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Cookie"

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/auth/login"),
            ("POST", "/api/auth/logout"),
            ("POST", "/api/auth/password"),
            ("DELETE", "/api/auth/sessions"),
            ("POST", "/api/subscription"),
            ("DELETE", "/api/subscription"),
        ],
    )
    def test_a_stranger_s_page(self, open_browser: Open, method: str, path: str) -> None:
        add_person()
        browser = open_browser()
        browser.sign_in()
        body = {"email": EMAIL, "password": PASSWORD} if method == "POST" else None
        strange = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}

        answer = browser.ask(method, path, body, headers=strange)

        assert answer.status == 403
        assert answer.body["detail"] == "This request comes from a page of another origin."
        assert browser.who() == EMAIL

    def test_other_methods(self, browser: Browser) -> None:
        assert browser.get("/api/auth/login").headers["allow"] == "POST"
        assert browser.ask("PUT", "/api/subscription").headers["allow"] == "DELETE, GET, HEAD, POST"

    def test_a_zero_byte_in_an_address(self, browser: Browser) -> None:
        assert browser.sign_in(email="a\0b@example.com").status == 422


# -- passwords --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap_hashes", "rolled_back")
class TestPasswords:
    def test_are_hashed_anew_where_the_parameters_changed(self, browser: Browser) -> None:
        with access.cheap_hashes(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)):
            add_person()
        old = db.fetch_value("SELECT password_hash FROM users WHERE email = %(email)s", {"email": EMAIL})

        assert browser.sign_in().status == 200

        new = db.fetch_value("SELECT password_hash FROM users WHERE email = %(email)s", {"email": EMAIL})
        assert ",t=2," in old
        assert ",t=1," in new
        assert browser.who() == EMAIL
        assert browser.sign_in().status == 200

    def test_changed_end_every_other_session(self, open_browser: Open) -> None:
        add_person()
        browser, other = open_browser(), open_browser()
        browser.sign_in()
        other.sign_in()

        assert browser.post("/api/auth/password", {"password": PASSWORD, "new_password": NEW_PASSWORD}).status == 200

        assert (browser.who(), other.who()) == (EMAIL, None)
        assert other.sign_in().status == 401
        assert other.sign_in(NEW_PASSWORD).status == 200

    def test_may_hold_any_character(self, browser: Browser) -> None:
        password = PASSWORD + " пароль 密码 \0 \U0001f511"
        add_person(password=password)

        assert browser.sign_in(password).status == 200


def test_the_real_parameters_are_those_of_rfc_9106() -> None:
    hasher = auth.hasher()
    assert (hasher.memory_cost, hasher.time_cost, hasher.parallelism, hasher.type.name) == (65536, 3, 4, "ID")


def test_a_body_never_shows_what_it_was_sent(browser: Browser) -> None:
    """A wrong shape is described without its values: they may be passwords."""
    answer = browser.post("/api/auth/login", {"email": EMAIL, "password": [PASSWORD]})

    assert answer.status == 422
    assert PASSWORD not in json.dumps(answer.body)

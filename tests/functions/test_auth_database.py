"""Access on real connections: what it costs, behind PgBouncer, with both drivers, and two things at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from argon2 import PasswordHasher

from shared import db, deadline
from shared.settings import reset_settings
from shared.web import Problem, auth
from tests import access
from tests.access import EMAIL, Browser, add_person
from tests.canary import NEW_PASSWORD, PASSWORD
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.watching import running, until

CHANGE = {"password": PASSWORD, "new_password": NEW_PASSWORD}


def use(monkeypatch: pytest.MonkeyPatch, url: str, **variables: str) -> None:
    for name, value in {"DATABASE_URL": url, "APP_ENV": "test", **variables}.items():
        monkeypatch.setenv(name, value)
    reset_settings()


# -- what it costs ----------------------------------------------------------------------------------


@pytest.fixture
def counted(
    cheap_hashes: None, postgres: Postgres, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WireProxy]:
    """Count between the app and the server; one connection is open already."""
    with WireProxy("127.0.0.1", postgres.port) as proxy:
        use(monkeypatch, proxy.url(migrated_database), DATABASE_DISABLE_SSL="true")
        add_person()
        yield proxy
        db.close_db(grace=0)


ATTEMPT = 1  # counted, by one statement
CLEANING = 1  # the first attempt of an address on an account only
READ = 1


def test_each_request_costs_so_many_round_trips(counted: WireProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions: BEGIN travels with the first statement; execute_many is one."""
    browser = access.browser("server", monkeypatch)

    def cost(method: str, path: str, body: Any = None, status: int = 200) -> int:
        with counted.count() as count:
            assert browser.ask(method, path, body).status == status
        assert count.connections == 0
        return count.flights

    wrong = {"email": EMAIL, "password": "wrong"}
    right = {"email": EMAIL, "password": PASSWORD}
    assert cost("GET", "/api/plans") == READ
    assert cost("GET", "/api/auth/me", status=401) == 0, "without a cookie nobody needs to be looked up"
    assert cost("POST", "/api/auth/logout", status=204) == 0
    assert cost("POST", "/api/auth/login", wrong, 401) == ATTEMPT + CLEANING + READ
    assert cost("POST", "/api/auth/login", wrong, 401) == ATTEMPT + READ
    nobody = {"email": "nobody@example.com", "password": "wrong"}
    assert cost("POST", "/api/auth/login", nobody, 401) == ATTEMPT + CLEANING + READ, "as for somebody"
    lock, insert, forgive, commit, remove = 1, 1, 1, 1, 1
    assert cost("POST", "/api/auth/login", right) == ATTEMPT + READ + lock + insert + forgive + commit
    assert cost("POST", "/api/auth/login", right) == ATTEMPT + READ + lock + remove + insert + forgive + commit

    signed_in = READ
    assert cost("GET", "/api/auth/me") == signed_in
    assert cost("GET", "/api/auth/sessions") == signed_in + READ
    assert cost("GET", "/api/subscription", status=404) == signed_in + READ
    assert cost("POST", "/api/subscription", {"plan": "free"}, 201) == signed_in + READ + insert + READ
    assert cost("DELETE", "/api/subscription", status=204) == signed_in + 1
    update = 1
    assert cost("POST", "/api/auth/password", CHANGE) == (
        signed_in + ATTEMPT + READ + update + remove + lock + remove + insert + forgive + commit
    )
    assert cost("POST", "/api/auth/logout", status=204) == remove
    browser.sign_in(NEW_PASSWORD)
    assert cost("DELETE", "/api/auth/sessions", status=204) == signed_in + remove


# -- behind a pooler, and with the other driver -----------------------------------------------------


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_the_whole_life_through_pgbouncer_in_transaction_mode(
    cheap_hashes: None, migrated_database: str, pgbouncer: PgBouncer, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, pgbouncer.url(migrated_database), DATABASE_DRIVER=driver)
    add_person(must_change_password=True)

    def life(number: int) -> None:
        """With others at work on the same three connections of the pooler."""
        email = f"person{number}@example.com"
        add_person(email, must_change_password=True)
        browser = access.browser("server", monkeypatch, f"192.0.2.{number}")
        other = access.browser("server", monkeypatch, f"198.51.100.{number}")
        assert browser.sign_in("wrong", email).status == 401
        assert browser.sign_in(email=email).body["must_change_password"] is True
        assert other.sign_in(email=email).status == 200
        assert browser.get("/api/subscription").status == 403
        assert browser.post("/api/auth/password", CHANGE).status == 200
        assert (browser.who(), other.who()) == (email, None)
        assert len(browser.get("/api/auth/sessions").body) == 1
        assert browser.post("/api/subscription", {"plan": "free"}).status == 201
        assert browser.get("/api/subscription").body["plan"] == "free"
        assert browser.ask("DELETE", "/api/subscription").status == 204
        assert other.sign_in(NEW_PASSWORD, email).status == 200
        assert browser.ask("DELETE", "/api/auth/sessions").status == 204
        assert other.who() is None
        assert other.sign_in(NEW_PASSWORD, email).status == 200
        assert other.post("/api/auth/logout").status == 204

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(life, range(1, 5)))
    db.close_db()


# -- at the same moment -----------------------------------------------------------------------------


def test_who_signs_in_while_the_password_changes_is_not_let_in(
    cheap_hashes: None, postgres: Postgres, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old password was right when it was looked at; by the time of the session it is not."""
    use(monkeypatch, migrated_database)
    add_person()
    browser = access.browser("server", monkeypatch)
    with psycopg.connect(migrated_database) as other, ThreadPoolExecutor(1) as executor:
        other.execute("UPDATE users SET password_hash = '$argon2id$changed' WHERE email = %s", [EMAIL])
        answer = executor.submit(browser.sign_in)
        until(lambda: running(postgres, migrated_database, "FOR NO KEY UPDATE"))
        other.execute("DELETE FROM sessions")
        other.commit()

        assert answer.result(30).status == 401
        assert db.fetch_value("SELECT count(*) FROM sessions") == 0


def test_two_changes_at_the_same_moment_are_one(
    cheap_hashes: None, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, migrated_database)
    add_person()
    browsers = [access.browser("server", monkeypatch) for _ in range(2)]
    for browser in browsers:
        browser.sign_in()

    def change(browser: Browser) -> int:
        return browser.post("/api/auth/password", CHANGE).status

    with ThreadPoolExecutor(2) as executor:
        tried = sorted(executor.map(change, browsers))

    # The later one finds its session ended, the password wrong, or both unchanged until the last moment.
    assert tried[0] == 200
    assert tried[1] in (401, 409, 422)
    assert db.fetch_value("SELECT count(*) FROM sessions") == 1
    assert sum(browser.who() == EMAIL for browser in browsers) == 1


def test_few_hash_at_once_and_who_waits_too_long_is_told_so() -> None:
    release, begun = threading.Event(), threading.Semaphore(0)
    lock, at_work, most = threading.Lock(), [0], [0]

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            with lock:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            begun.release()
            release.wait(30)
            with lock:
                at_work[0] -= 1
            return "made"

    with access.cheap_hashes(Slow()), ThreadPoolExecutor(6) as executor:
        hashes = [executor.submit(auth.hash_password, "x") for _ in range(6)]
        try:
            for _ in range(2):
                assert begun.acquire(timeout=30)
            with deadline.within(0), pytest.raises(Problem) as caught:
                auth.hash_password("x")
        finally:
            release.set()
        assert [done.result(30) for done in hashes] == ["made"] * 6

    assert most[0] == 2
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})

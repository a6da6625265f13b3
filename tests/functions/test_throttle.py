"""Too many attempts: counted by account and address, for all instances together."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from shared import db
from shared.settings import reset_settings
from shared.web import throttle
from tests import access
from tests.access import EMAIL, Browser, add_person
from tests.canary import NEW_PASSWORD, PASSWORD
from tests.functions.conftest import Open
from tests.servers.pgbouncer import PgBouncer

ROOT = Path(__file__).resolve().parents[2]
LIMIT = throttle.ACCOUNT_FROM_ADDRESS

pytestmark = pytest.mark.usefixtures("cheap_hashes")


def statuses(browser: Browser, times: int, password: str = "wrong", email: str = EMAIL) -> list[int]:
    return [browser.sign_in(password, email).status for _ in range(times)]


@pytest.mark.usefixtures("rolled_back")
class TestOneBrowser:
    def test_is_refused_after_so_many_even_with_the_right_password(self, open_browser: Open) -> None:
        add_person()
        browser = open_browser()

        assert statuses(browser, LIMIT) == [401] * LIMIT
        refused = browser.sign_in()

        assert refused.status == 429
        assert 0 < int(refused.headers["retry-after"]) <= throttle.MINUTES * 60
        assert refused.body["detail"] == "Too many attempts. Try again later."

    def test_however_it_writes_the_address(self, browser: Browser) -> None:
        add_person()
        statuses(browser, LIMIT - 1)
        statuses(browser, 1, email=EMAIL.swapcase())

        assert browser.sign_in().status == 429

    def test_is_refused_for_accounts_that_do_not_exist_too(self, browser: Browser) -> None:
        assert statuses(browser, LIMIT + 1, email="nobody@example.com") == [401] * LIMIT + [429]

    def test_may_go_on_with_another_account_and_another_browser_with_this_one(self, open_browser: Open) -> None:
        add_person()
        add_person("bob@example.com")
        browser, elsewhere = open_browser(), open_browser("192.0.2.99")
        statuses(browser, LIMIT + 1)

        assert browser.sign_in(email="bob@example.com").status == 200
        assert elsewhere.sign_in().status == 200

    def test_may_try_again_after_a_while(self, browser: Browser) -> None:
        add_person()
        statuses(browser, LIMIT + 1)
        db.execute("UPDATE throttles SET expires_at = now()")

        assert browser.sign_in().status == 200

    def test_that_signs_in_again_and_again_is_never_refused(self, browser: Browser) -> None:
        add_person()
        statuses(browser, LIMIT - 1)

        assert statuses(browser, LIMIT + 1, PASSWORD) == [200] * (LIMIT + 1)
        assert statuses(browser, 2) == [401, 429]

    def test_that_is_signed_in_stays_so(self, browser: Browser) -> None:
        add_person()
        browser.sign_in()
        statuses(browser, LIMIT + 1)

        assert browser.who() == EMAIL

    def test_cannot_try_the_present_password_for_ever(self, browser: Browser) -> None:
        add_person()
        browser.sign_in()
        change = {"password": "wrong", "new_password": NEW_PASSWORD}

        tried = [browser.post("/api/auth/password", change).status for _ in range(LIMIT + 1)]

        assert tried == [422] * LIMIT + [429]

    def test_leaves_no_address_behind(self, browser: Browser) -> None:
        """People type passwords into the wrong field."""
        statuses(browser, 1, email=PASSWORD)

        (row,) = db.fetch_all("SELECT string_agg(t::text, '') AS everything FROM throttles AS t")
        assert PASSWORD not in row["everything"]


@pytest.mark.usefixtures("rolled_back")
class TestManyBrowsers:
    def test_of_one_address_are_refused_together(self, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(throttle, "ADDRESS", 3)

        assert [browser.sign_in("x", f"{n}@example.com").status for n in range(5)] == [401] * 3 + [429] * 2

    def test_of_one_ipv6_network_are_one(self, open_browser: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(throttle, "ADDRESS", 3)
        addresses = [f"2001:db8:1:2::{n:x}" for n in range(4)]

        tried = [open_browser(address).sign_in("x", f"{address}@x").status for address in addresses]

        assert tried == [401] * 3 + [429]
        assert open_browser("2001:db8:1:3::1").sign_in("x").status == 401

    def test_from_everywhere_are_refused_for_one_account(
        self, open_browser: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(throttle, "ACCOUNT", 3)
        add_person()

        tried = [open_browser(f"192.0.2.{n}").sign_in("wrong").status for n in range(1, 5)]

        assert tried == [401] * 3 + [429]

    def test_one_of_them_alone_cannot_lock_an_account_for_all(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(throttle, "ACCOUNT", LIMIT + 1)
        add_person()
        statuses(browser, LIMIT * 3)

        assert access.browser("server", monkeypatch, "192.0.2.99").sign_in().status == 200


# -- at the same moment -----------------------------------------------------------------------------


@pytest.fixture(params=["direct", "pgbouncer"])
def real_database(
    request: pytest.FixtureRequest, migrated_database: str, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Use a database with connections of the pool's own, directly and through PgBouncer in transaction mode."""
    url = migrated_database if request.param == "direct" else pgbouncer.url(migrated_database)
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    return url


@pytest.mark.usefixtures("real_database")
def test_attempts_at_the_same_moment_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    add_person()
    threads = LIMIT + 6
    barrier = Barrier(threads)

    def attempt(_: int) -> int:
        browser = access.browser("server", monkeypatch)
        barrier.wait(30)
        return browser.sign_in("wrong").status

    with ThreadPoolExecutor(threads) as executor:
        tried = list(executor.map(attempt, range(threads)))

    assert sorted(tried) == [401] * LIMIT + [429] * 6


def test_brute_force_is_throttled_across_instances(real_database: str) -> None:
    add_person()
    instances = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.functions.programs.attempts", str(LIMIT)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    tried = []
    for instance in instances:
        output, _ = instance.communicate(timeout=60)
        tried += json.loads(output)

    assert sorted(tried) == [401] * LIMIT + [429] * LIMIT

"""Fixtures of the tests in a real browser: Chromium, a server like production's, sites on it, and what a page says.

`make test-browser` runs them, `make test` does not. Without a browser they are skipped with the reason, and in CI they
fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import chromium, states
from tests.browser.site import TOKEN, Site, serving
from tests.deploy.tools import Missing
from tests.servers.postgres import Postgres
from tests.servers.process import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
PHONE = {"width": 320, "height": 640}
DESKTOP = {"width": 1100, "height": 800}

Open = Callable[..., "Page"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a running Chromium."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(chromium.running())
        except Missing as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="session")
def axe() -> str:
    """Return axe-core's script."""
    return chromium.axe()


@pytest.fixture(scope="session")
def calm_postgres(run_directory: Path) -> Iterator[Postgres]:
    """Return a server that has nothing wrong with it."""
    with states.server(run_directory / "browser") as postgres:
        yield postgres


@pytest.fixture(scope="session")
def nobody() -> str:
    """Return the URL of a database that does not answer."""
    return f"postgresql://app:x@127.0.0.1:{free_port()}/shop"


@pytest.fixture(scope="module")
def down(nobody: str) -> Iterator[Site]:
    """Return a site whose database is down."""
    with serving(nobody) as site:
        yield site


@pytest.fixture(scope="module")
def well(calm_postgres: Postgres) -> Iterator[Site]:
    """Return a site in which all is well, with a month of samples."""
    with states.database(calm_postgres, "shop") as url, serving(url) as site:
        yield site


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a site: open_page(site, signed_in=True, viewport=PHONE, color_scheme="dark").

    At the end no page may have complained on its console, or asked anybody but its own site. Complaints that a test
    means to have are named: open_page(site, expected=["401"]).
    """
    complaints: list[str] = []
    asked: set[str] = set()
    sites: set[str] = set()
    contexts: list[Any] = []

    def open_page(site: Site, *, signed_in: bool = True, expected: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(**{"timezone_id": "UTC", "viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()

        def complain(text: str) -> None:
            if not any(words in text for words in expected):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        sites.add(site.url)
        page.clock.install()
        page.goto(site.url)
        if signed_in:
            sign_in(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    elsewhere = [url for url in asked if not url.startswith((*sites, "data:"))]
    assert elsewhere == []


def sign_in(page: Page, token: str = TOKEN) -> None:
    """Sign in by keyboard."""
    page.locator("#token").fill(token)
    page.keyboard.press("Enter")
    page.locator("#sign-out").wait_for()


def looked_again(page: Page) -> None:
    """Let ten seconds pass, and return when the page has put the answer in its place."""
    page.evaluate("document.getElementById('page').dataset.title = 'old'")
    page.clock.fast_forward(10_000)
    page.locator("#page:not([data-title=old])").wait_for()

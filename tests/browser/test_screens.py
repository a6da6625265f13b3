"""Every screen, in light and dark, wide and as narrow as a small phone: in order for eyes, keyboards and readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import states
from tests.browser.conftest import DESKTOP, PHONE, Open, looked_again
from tests.browser.site import Site, serving
from tests.servers.postgres import Postgres
from tests.shared.db.watching import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light", "reduced_motion": "no-preference"},
    "phone": {"viewport": PHONE, "color_scheme": "dark", "reduced_motion": "reduce", "has_touch": True},
}
_AXE = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"


def check(page: Page, axe: str) -> None:
    """Assert what must hold of every screen."""
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(_AXE)["violations"]
    barriers = [
        {"id": one["id"], "where": [node["html"][:200] for node in one["nodes"][:3]], "what": one["help"]}
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert barriers == [], json.dumps(barriers, indent=1)
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    assert page.title().endswith(" · Database")
    small = page.evaluate(
        "[...document.querySelectorAll('button, summary, .choices label')].filter(one => one.offsetHeight)"
        ".filter(one => one.getBoundingClientRect().height < 24).map(one => one.outerHTML)"
    )
    assert small == [], "too small for a finger (WCAG 2.5.8)"


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Show each screen in each of these."""
    name: str = request.param
    return LOOKS[name]


def test_signed_out(down: Site, open_page: Open, axe: str, look: dict[str, Any]) -> None:
    page = open_page(down, signed_in=False, **look)
    assert page.evaluate("document.activeElement.id") == "token"
    check(page, axe)


def test_nobody_may_sign_in(nobody: str, open_page: Open, axe: str) -> None:
    with serving(nobody, token=None) as site:
        page = open_page(site, signed_in=False)
        assert page.get_by_text("openssl rand -hex 32").is_visible()
        check(page, axe)


def test_well(well: Site, open_page: Open, axe: str, look: dict[str, Any]) -> None:
    page = open_page(well, **look)
    assert page.locator("h1").text_content() == "All is well"
    assert page.locator("#attention").count() == 0
    assert page.locator(".span.day svg").count() == 4
    assert page.locator("#ledger tbody tr").count() == 5
    check(page, axe)


def test_no_data_yet(calm_postgres: Postgres, open_page: Open, axe: str) -> None:
    with states.database(calm_postgres, "shop_without_samples", samples=False) as url, serving(url) as site:
        page = open_page(site, viewport=PHONE)
        assert page.get_by_text("No sample yet").is_visible()
        check(page, axe)


def test_database_down(down: Site, open_page: Open, axe: str, look: dict[str, Any]) -> None:
    page = open_page(down, **look)
    assert page.locator("h1").text_content() == "The database cannot be reached"
    assert page.get_by_text("connection_refused").is_visible()
    check(page, axe)


@pytest.fixture(scope="module")
def trouble(calm_postgres: Postgres) -> Iterator[Site]:
    with (
        states.database(calm_postgres, "shop_in_trouble") as url,
        states.in_trouble(calm_postgres, url),
        serving(url) as site,
    ):
        yield site


def test_trouble(trouble: Site, open_page: Open, axe: str, look: dict[str, Any]) -> None:
    page = open_page(trouble, **look)

    def is_seen() -> bool:
        looked_again(page)
        return bool(page.locator("#wrong-blocked_sessions").count())

    until(is_seen, timeout=30)  # they wait for five seconds until that is worth a look
    assert page.locator(".wrong").first.get_by_role("heading").text_content() == "failing Sequences"
    assert page.locator(".wrong .badge .word").all_text_contents() == ["failing", "warning", "warning"]
    tree = page.locator("#sessions > .tree").first
    assert tree.locator("> li > .session").get_by_text("import").is_visible()
    assert tree.locator("> li > .tree > li > .session").get_by_text("web/1").is_visible()
    assert tree.locator("> li > .tree > li > .tree > li > .session").get_by_text("web/2").is_visible()
    assert "UPDATE orders SET total = ?" in str(tree.text_content())
    check(page, axe)


@pytest.fixture(scope="module")
def named(calm_postgres: Postgres) -> Iterator[Site]:
    with (
        states.database(calm_postgres, "shop_with_names") as url,
        states.with_names(calm_postgres, url),
        serving(url) as site,
    ):
        yield site


def test_names_as_nobody_wants_them(named: Site, open_page: Open, axe: str, look: dict[str, Any]) -> None:
    page = open_page(named, **look)
    check(page, axe)
    cells = page.locator("#check-table_statistics td, #check-duplicate_indexes td").all_text_contents()
    for name in states.NAMES:
        quoted = name.replace('"', '""')
        assert f'public."{quoted}"' in cells or f"public.{name}" in cells
    assert page.locator("#sessions").get_by_text(states.APPLICATION, exact=True).is_visible()
    assert page.locator("main b").filter(has_text="bold").count() == 0
    assert page.locator("main img, main script").count() == 0

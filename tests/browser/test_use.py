"""What people do with the page, and what it does by itself: signing in, looking again, losing contact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser import states
from tests.browser.conftest import Open, looked_again, sign_in
from tests.browser.site import TOKEN, Site, serving
from tests.servers.postgres import Postgres

if TYPE_CHECKING:
    from playwright.sync_api import Page


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.className"))


# -- signing in -------------------------------------------------------------------------------------


def test_a_wrong_token_is_announced_and_the_right_one_lets_in(well: Site, open_page: Open) -> None:
    page = open_page(well, signed_in=False, expected=("401",))
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert").filter(has_text="That is not the token.")
    alert.wait_for()
    assert focused(page) == "token"
    assert page.locator("#token").get_attribute("aria-invalid") == "true"
    page.keyboard.type(TOKEN)  # what was wrong is selected
    page.keyboard.press("Enter")
    page.locator("#sign-out").wait_for()
    page.locator("#main:focus").wait_for()
    assert TOKEN not in page.url
    assert page.context.cookies()[0]["httpOnly"]


def test_signing_out_ends_it(well: Site, open_page: Open) -> None:
    page = open_page(well)
    page.get_by_role("button", name="Sign out").click()
    page.locator("#token").wait_for()
    assert page.context.cookies() == []
    page.reload()
    assert page.locator("#token").is_visible()


def test_a_link_from_elsewhere_finds_the_operator_signed_in(well: Site, open_page: Open) -> None:
    """As one in an alert: the browser does not send a SameSite=Strict cookie then."""
    page = open_page(well)
    elsewhere = well.url.replace("127.0.0.1", "localhost")  # another site
    link = f"<a href='{well.url}'>The alert's link</a>"
    other = page.context.new_page()
    other.route(f"{elsewhere}**", lambda route: route.fulfill(body=link, content_type="text/html"))
    other.goto(elsewhere)
    with other.expect_response(lambda response: response.url == well.url) as first:
        other.get_by_role("link").click()
    assert 'id="sign-in"' in first.value.text()
    other.locator("#sign-out").wait_for()


def test_the_end_of_the_session_is_said(open_page: Open, nobody: str) -> None:
    with serving(nobody) as site:
        page = open_page(site, expected=("401", "ERR_CONNECTION"))
        site.stop()
        site.start(f"{TOKEN}, changed")
        page.clock.fast_forward(10_000)
        page.get_by_role("alert").filter(has_text="The session ended at").wait_for()
        assert page.locator("#verdict").count() == 0, "what only the operator may see is gone"
        assert focused(page) == "token"
        sign_in(page, f"{TOKEN}, changed")


# -- looking again ----------------------------------------------------------------------------------


def test_looking_again_keeps_what_is_open_and_where_one_is(well: Site, open_page: Open) -> None:
    page = open_page(well)
    page.locator("#check-largest_tables > summary").click()
    page.get_by_role("radio", name="30 days").check()
    page.locator("#check-sequences > summary").focus()
    page.evaluate("document.querySelector('#check-largest_tables .box').scrollLeft = 5; scrollTo(0, 900)")
    top = page.evaluate("scrollY")
    page.evaluate("document.getElementById('verdict').textContent = 'old'")

    looked_again(page)

    assert page.locator("#verdict").text_content() == "All is well"
    assert page.locator("#check-largest_tables").evaluate("one => one.open")
    assert page.get_by_role("radio", name="30 days").is_checked()
    assert page.locator(".span.month").is_visible()
    assert not page.locator(".span.day").is_visible()
    assert page.evaluate("document.activeElement.parentElement.id") == "check-sequences"
    assert page.evaluate("scrollY") == top


def test_what_came_and_went_is_seen(well: Site, open_page: Open) -> None:
    """Cards appear before others and disappear, and the focus of who stood on one is not lost."""
    page = open_page(well)
    page.evaluate(
        """() => {
          const card = document.createElement("article");
          card.id = "gone"; card.tabIndex = 0;
          document.getElementById("main").insertBefore(card, document.getElementById("tiles"));
          document.getElementById("check-schema").remove();
          card.focus();
        }"""
    )
    looked_again(page)
    assert page.locator("#gone").count() == 0
    assert page.locator("#topic-schema-checks #check-schema").count() == 1
    assert focused(page) == "main"


def test_lost_contact_is_said_with_its_time_and_goes_when_it_is_back(open_page: Open, nobody: str) -> None:
    with serving(nobody) as site:
        page = open_page(site, expected=("ERR_CONNECTION",))
        site.stop()
        page.clock.fast_forward(10_000)
        banner = page.get_by_role("alert").filter(has_text="No contact since")
        banner.wait_for()
        first = banner.text_content()
        assert page.locator("#verdict").is_visible(), "what was known stays"
        with page.expect_event("requestfailed"):
            page.clock.fast_forward(10_000)
        assert banner.text_content() == first, "since when it is, not how long"
        site.start()
        page.clock.fast_forward(10_000)
        page.locator("#banner").wait_for(state="hidden")
        assert page.evaluate("document.body.className") == ""


def test_nothing_is_asked_while_the_page_is_out_of_sight(well: Site, open_page: Open) -> None:
    page = open_page(well)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.fast_forward(60_000)
    page.evaluate("fetch('/api/health?live=1')")  # what comes after it was not asked for before
    assert [url for url in asked if "content=1" in url] == []
    with page.expect_response(lambda response: "content=1" in response.url):
        page.evaluate("dispatchEvent(new Event('online'))")  # the one look does not bring others
    page.clock.fast_forward(60_000)
    page.evaluate("fetch('/api/health?live=1')")
    assert len([url for url in asked if "content=1" in url]) == 1
    with page.expect_response(lambda response: "content=1" in response.url):
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")


# -- with the keyboard and the pointer --------------------------------------------------------------


def test_it_works_without_a_mouse(well: Site, open_page: Open) -> None:
    page = open_page(well)
    page.reload()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="To the content")
    assert skip.evaluate("one => one === document.activeElement")
    assert skip.evaluate("one => one.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert focused(page) == "main"
    page.keyboard.press("Tab")  # the first tile
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.locator("#check-connection").evaluate("one => one.open"), "its details open"
    page.get_by_role("radio", name="24 hours").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".span.month").is_visible()


def test_sql_is_copied(calm_postgres: Postgres, open_page: Open) -> None:
    with states.database(calm_postgres, "shop_to_mend") as url:
        states.run(url, "CREATE INDEX again ON orders (customer_id)")
        with serving(url) as site:
            page = open_page(site, permissions=["clipboard-read", "clipboard-write"])
            page.get_by_role("button", name="Copy").first.click()
            page.get_by_role("button", name="Copied").first.wait_for()
            assert page.evaluate("navigator.clipboard.readText()") == "DROP INDEX CONCURRENTLY public.again;"


def test_the_pointer_reads_a_plot(well: Site, open_page: Open) -> None:
    page = open_page(well)
    plot = page.locator("#day-connections .plot")
    plot.hover()
    reading = page.locator("#day-connections .reading")
    assert reading.is_visible()
    assert "%" in str(reading.text_content())
    page.locator("h1").hover()
    assert not reading.is_visible()


def test_who_asked_for_less_motion_gets_none(well: Site, open_page: Open) -> None:
    page = open_page(well, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.evaluate("document.getAnimations().length") == 0

"""Plans, and the subscription of the signed-in person."""

import re

import pytest

from shared import db
from tests.access import Browser, add_person
from tests.functions.conftest import Open

pytestmark = pytest.mark.usefixtures("cheap_hashes", "rolled_back")


@pytest.fixture
def ada(browser: Browser) -> Browser:
    """Return the browser of somebody who is signed in."""
    add_person()
    browser.sign_in()
    return browser


def test_everybody_sees_the_plans(open_browser: Open) -> None:
    db.execute("UPDATE plans SET active = false WHERE code = 'pro_yearly'")

    answer = open_browser().get("/api/plans")

    assert answer.status == 200
    assert [plan["code"] for plan in answer.body] == ["free", "pro_monthly"]
    assert answer.body[0] == {
        "code": "free",
        "name": "Free",
        "price_cents": 0,
        "currency": "USD",
        "billing_interval": "month",
        "features": {"seats": 1, "support": "community"},
    }


def test_a_subscription_from_beginning_to_end(ada: Browser) -> None:
    assert ada.get("/api/subscription").status == 404

    begun = ada.post("/api/subscription", {"plan": "free"})
    assert begun.status == 201
    assert (begun.body["plan"], begun.body["status"]) == ("free", "active")
    assert re.match(r"\d{4}-\d\d-\d\dT", begun.body["current_period_end"])
    assert db.fetch_value("SELECT current_period_end = current_period_start + interval '1 month' FROM subscriptions")
    assert ada.get("/api/subscription").body == begun.body

    again = ada.post("/api/subscription", {"plan": "free"})
    assert (again.status, again.body["detail"]) == (409, "There is a subscription already: cancel it first.")

    assert ada.ask("DELETE", "/api/subscription").status == 204
    assert ada.get("/api/subscription").status == 404
    assert ada.ask("DELETE", "/api/subscription").status == 404
    assert ada.post("/api/subscription", {"plan": "free"}).status == 201
    assert db.fetch_value("SELECT count(*) FROM subscriptions WHERE status = 'canceled'") == 1


def test_what_costs_something_is_not_given_away(ada: Browser) -> None:
    assert ada.post("/api/subscription", {"plan": "pro_monthly"}).status == 402
    assert ada.get("/api/subscription").status == 404


def test_a_plan_that_is_no_longer_offered_is_none(ada: Browser) -> None:
    db.execute("UPDATE plans SET active = false")

    assert ada.post("/api/subscription", {"plan": "free"}).status == 422


def test_everybody_sees_their_own_only(ada: Browser, open_browser: Open) -> None:
    add_person("bob@example.com")
    bob = open_browser()
    bob.sign_in(email="bob@example.com")
    ada.post("/api/subscription", {"plan": "free"})

    assert bob.get("/api/subscription").status == 404
    assert bob.ask("DELETE", "/api/subscription").status == 404
    assert ada.get("/api/subscription").status == 200

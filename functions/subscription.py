"""The signed-in person's subscription: see it, begin it, cancel it."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict, cast

from shared import db
from shared.web import Endpoint, Problem, Reply, User, lambda_handler

endpoint = Endpoint("/api/subscription")


class Subscription(TypedDict):
    plan: str
    status: Literal["trialing", "active", "past_due", "canceled"]
    current_period_start: str
    current_period_end: str


@dataclass
class Choice:
    plan: str


@endpoint.get
def read(user: User) -> Subscription:
    """Answer 200 with the current subscription; 404 where there is none."""
    return _current(user)


@endpoint.post
def begin(user: User, body: Choice) -> Annotated[Reply, Subscription]:
    """Answer 201 with a subscription to a free plan; 402 where the plan costs something, 409 where there is one."""
    plan = db.fetch_one(
        "SELECT id, price_cents, billing_interval FROM plans WHERE code = %(code)s AND active", {"code": body.plan}
    )
    if plan is None:
        raise Problem(422, "plan is none of those on offer.")
    if plan["price_cents"] > 0:
        # What costs something begins where the payment provider says that it was paid: in an endpoint that it calls.
        raise Problem(402, "This plan must be paid for first.")
    begun = db.execute(
        """
        INSERT INTO subscriptions (user_id, plan_id, current_period_end)
        VALUES (%(user_id)s, %(plan_id)s, now() + ('1 ' || %(unit)s)::interval)
        ON CONFLICT (user_id) WHERE status <> 'canceled' DO NOTHING
        """,
        {"user_id": user.id, "plan_id": plan["id"], "unit": plan["billing_interval"]},
    )
    if not begun:
        raise Problem(409, "There is a subscription already: cancel it first.")
    return Reply(_current(user), status=201)


@endpoint.delete
def cancel(user: User) -> None:
    """Answer 204 and cancel the current subscription; 404 where there is none."""
    canceled = db.execute(
        """
        UPDATE subscriptions SET status = 'canceled', canceled_at = now()
        WHERE user_id = %(user_id)s AND status <> 'canceled'
        """,
        {"user_id": user.id},
    )
    if not canceled:
        raise _none()


def _current(user: User) -> Subscription:
    row = db.fetch_one(
        """
        SELECT p.code AS plan, s.status, s.current_period_start, s.current_period_end
        FROM subscriptions s JOIN plans p ON p.id = s.plan_id
        WHERE s.user_id = %(user_id)s AND s.status <> 'canceled'
        """,
        {"user_id": user.id},
    )
    if row is None:
        raise _none()
    return cast(Subscription, row)


def _none() -> Problem:
    return Problem(404, "There is no subscription.")


handler = lambda_handler(endpoint)

"""List the plans on offer."""

from typing import Any, Literal, TypedDict, cast

from shared import db
from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/plans")


class Plan(TypedDict):
    code: str
    name: str
    price_cents: int
    currency: str
    billing_interval: Literal["month", "year"]
    features: dict[str, Any]


@endpoint.get
def plans() -> list[Plan]:
    """Answer 200 with the plans that people can subscribe to, the cheapest first."""
    rows = db.fetch_all(
        """
        SELECT code, name, price_cents, currency, billing_interval, features
        FROM plans WHERE active ORDER BY price_cents, code
        """
    )
    return cast(list[Plan], rows)


handler = lambda_handler(endpoint)

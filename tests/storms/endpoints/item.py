"""Read one item by its key."""

from shared import db
from shared.web import Endpoint, Problem, lambda_handler

endpoint = Endpoint("/api/item/{id}")


@endpoint.get
def read(id: int) -> db.Row:
    """Run one statement, which no server gets twice."""
    row = db.fetch_one("SELECT id, name FROM item WHERE id = %(id)s", {"id": id})
    if row is None:
        raise Problem(404, "There is no such item.")
    return row


handler = lambda_handler(endpoint)

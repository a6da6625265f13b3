"""What an endpoint's function gives back, and how it becomes a response."""

import datetime
import decimal
import json
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from shared.web.problem import Problem


class Reply:
    """A JSON body with a status and headers of its own; a function that needs neither returns the body alone."""

    def __init__(self, body: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.body = body
        self.status = status
        self.headers = dict(headers or {})


def response_from(value: Any) -> Response:
    """Make a response of what a function returned: a Response, a Reply, nothing (204), or a JSON body (200)."""
    if isinstance(value, Response):
        return value
    if value is None:
        return Response(status_code=204)
    reply = value if isinstance(value, Reply) else Reply(value)
    if reply.body is None:  # a 204 or 304 must have none
        return Response(status_code=reply.status, headers=reply.headers)
    return Response(encode(reply.body), reply.status, reply.headers, media_type="application/json")


def response_from_problem(problem: Problem) -> Response:
    """Make the response of RFC 9457."""
    return Response(encode(problem.document()), problem.status, problem.headers, media_type="application/problem+json")


def encode(value: Any) -> bytes:
    """Write JSON; what columns hold beyond JSON's types is written as text."""
    return _to_json(value).encode()


def _as_text(value: Any) -> str:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID | decimal.Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: convert it in the endpoint or in SQL")


# Made once: json.dumps makes an encoder at each call.
_to_json = json.JSONEncoder(default=_as_text, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

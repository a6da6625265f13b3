"""Describe the endpoints to programs."""

from functools import cache
from pathlib import Path
from typing import Any

from shared.web import Endpoint, Request, lambda_handler, sessions
from shared.web.application import endpoints_in
from shared.web.openapi import document

endpoint = Endpoint("/api/openapi")


@endpoint.get
def openapi(request: Request) -> dict[str, Any]:
    """Answer 200 with the OpenAPI 3.1 document of all endpoints."""
    return _document(sessions.cookie_name(request))


@cache
def _document(cookie: str) -> dict[str, Any]:
    return document(endpoints_in(Path(__file__).parent, "functions"), cookie=cookie)


handler = lambda_handler(endpoint)

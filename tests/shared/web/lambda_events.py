"""Events as AWS sends them to a function, and its context object."""

from __future__ import annotations

import base64
from typing import Any

PLENTY = 600_000  # milliseconds

# What is no request: schedules, warmers, queues, and whatever somebody sends by hand.
OTHERS: tuple[Any, ...] = (
    {},
    None,
    [],
    "warm",
    5,
    {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    {"source": "serverless-plugin-warmup"},
    {"Records": [{"eventSource": "aws:sqs", "body": "x"}]},
    {"version": "1.0", "requestContext": {"requestId": "x", "condition": "Success"}, "requestPayload": {}},
    {"requestContext": None},
)


class Context:
    """Lambda's context object, as far as it is used."""

    def __init__(self, milliseconds: int = PLENTY) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


def event(
    method: str = "GET",
    path: str = "/api/x",
    *,
    query: str = "",
    headers: dict[str, str] | None = None,
    cookies: list[str] | None = None,
    body: bytes | None = None,
) -> dict[str, Any]:
    """Return an event of an HTTP API (payload format 2.0), as API Gateway's developer guide shows it."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "id.execute-api.eu-central-1.amazonaws.com", **(headers or {})},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "id.execute-api.eu-central-1.amazonaws.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "curl",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "19/Dec/2025:10:30:00 +0000",
            "timeEpoch": 1766140200000,
        },
        "isBase64Encoded": body is not None,
    }
    if cookies is not None:
        event["cookies"] = cookies
    if body is not None:
        event["body"] = base64.b64encode(body).decode()
    return event

"""An endpoint as AWS Lambda calls it: `functions/health.handler` in serverless.yml.

Most requests ask a function for nothing but the path's parameters. These are answered here and now: no ASGI, no event
loop, no thread, which would cost twice the endpoint's own work. All others, with a body, of another method, with CORS,
go through the ASGI app that every platform runs, and get the same answer.
"""

import asyncio
import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast
from urllib.parse import unquote

from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp

from shared import deadline, log
from shared.db import drivers
from shared.errors import ConfigurationError
from shared.settings import get_settings
from shared.web.application import EndpointFile, Envelope, application, headers_of_all
from shared.web.endpoint import Endpoint, run_inline

_MARGIN = 0.5  # seconds of Lambda's time kept for the answer itself
# Other bodies travel as base64.
_TEXT = ("text/", "application/json", "application/problem+json", "application/health+json")

Answer = dict[str, Any]
Handler = Callable[[Any, "Context"], Answer]


class Context(Protocol):
    """What we need of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


def lambda_handler(*endpoints: Endpoint | EndpointFile, scheduled: Callable[[], Answer] | None = None) -> Handler:
    """Give the function that Lambda calls for one endpoint, or for several behind one function.

    A schedule of EventBridge calls `scheduled`; it needs no token, because only who may invoke the function can send
    one. Any other event that is no HTTP request, such as a warmer's, is acknowledged and ignored.
    """
    direct = _Direct(endpoints)
    app: ASGIApp | None = None  # made when it is first needed

    def handler(event: Any, context: Context) -> Answer:
        nonlocal app
        limit = context.get_remaining_time_in_millis() / 1000 - _MARGIN
        if not _is_http(event):
            if scheduled is None or not _is_schedule(event):
                return {"ignored": True}
            log.configure()
            with deadline.within(limit):
                return scheduled()
        answer = direct.answer(event, limit)
        if isinstance(answer, dict):
            return answer
        if answer is None:
            through = app = app or application(endpoints)
        else:
            through = Envelope(answer)
        with deadline.within(limit):
            return _through_asgi(through, event, context)

    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        # At import, where Lambda gives a whole processor and counts none of it as the request's time.
        drivers.load("pg8000" if os.environ.get("DATABASE_DRIVER") == "pg8000" else "psycopg")
        if os.environ.get("LAMBDA_CLOSE_ON_SIGTERM") == "true":
            from shared.web import aws_extension  # it brings an HTTP client

            aws_extension.close_connections_at_the_end()
    return handler


class _Direct:
    """Requests of an HTTP API (payload 2.0) that ask for nothing but the path's parameters."""

    def __init__(self, endpoints: Sequence[Endpoint | EndpointFile]) -> None:
        self._routes: list[tuple[re.Pattern[str], Endpoint | EndpointFile]] = [
            (compile_path(endpoint.path)[0], endpoint) for endpoint in endpoints
        ]
        self._headers: Mapping[str, str] | None = None  # of every answer
        self._allowed: bool | None = None  # None: the settings were not read yet

    def answer(self, event: Mapping[str, Any], limit: float) -> Answer | Response | None:
        """Give the answer; a Response that is not rendered yet; or None, and nothing done, where ASGI is needed."""
        request = event["requestContext"].get("http")
        if request is None or not (self._allowed or self._prepare()):
            return None
        endpoint, path_params = self._find(unquote(request["path"]))
        if endpoint is None:
            return None
        response = endpoint.answer_inline(request["method"], path_params, event.get("headers") or {}, limit)
        if response is None:
            return None
        # Those that stream have no body yet, and what runs in the background must run.
        if not hasattr(response, "body") or response.background is not None:
            return response
        return self._rendered(response)

    def _find(self, path: str) -> tuple[Endpoint | None, dict[str, str]]:
        for pattern, endpoint in self._routes:
            match = pattern.match(path)
            if match is None:
                continue
            try:
                return endpoint.load() if isinstance(endpoint, EndpointFile) else endpoint, match.groupdict()
            except Exception:  # it cannot be imported: the app answers for it, and logs it
                break
        return None, {}

    def _prepare(self) -> bool:
        # At the first request, not at import, as the app does it.
        if self._allowed is None:
            log.configure()
            try:
                current = get_settings()
            except ConfigurationError:
                return False  # the app says what is wrong
            self._headers = {name.decode(): value.decode() for name, value in headers_of_all(current)}
            self._allowed = not current.cors_allow_origins
        return self._allowed

    def _rendered(self, response: Response) -> Answer:
        headers, cookies = dict(self._headers or {}), []
        own: dict[str, str] = {}
        for raw_name, raw_value in response.raw_headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name == "set-cookie":
                cookies.append(value)
            else:
                own[name] = f"{own[name]},{value}" if name in own else value
        headers.update(own)
        body, is_binary = _body(bytes(response.body), headers.get("content-type", ""))
        answer = {"statusCode": response.status_code, "headers": headers, "body": body, "isBase64Encoded": is_binary}
        if cookies:
            answer["cookies"] = cookies
        return answer


def _body(body: bytes, content_type: str) -> tuple[str, bool]:
    """Write a body as JSON can carry it, and tell whether that is base64."""
    if not body or content_type.startswith(_TEXT):
        try:
            return body.decode(), False
        except UnicodeDecodeError:  # compressed, or in another encoding
            pass
    return b64encode(body).decode(), True


def _through_asgi(app: ASGIApp, event: Any, context: Context) -> Answer:
    from mangum import Mangum  # here: few requests need it

    # Mangum takes the thread's current loop, which any asyncio.run() of somebody else's has taken away.
    asyncio.set_event_loop(_event_loop())
    # Mangum would run start-up and shutdown around every request, and with them close the pool.
    adapter = Mangum(cast(Any, app), lifespan="off", text_mime_types=list(_TEXT))
    token = run_inline.set(True)
    try:
        answer: Answer = adapter(event, cast(Any, context))
        return answer
    finally:
        run_inline.reset(token)


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Make the one loop of all invocations."""
    return asyncio.new_event_loop()


def _is_schedule(event: Any) -> bool:
    return isinstance(event, dict) and event.get("detail-type") == "Scheduled Event"


def _is_http(event: Any) -> bool:
    """Tell a request from whatever else a function may be invoked with: any JSON value."""
    if not isinstance(event, dict):
        return False
    context = event.get("requestContext")
    # An HTTP API's payload 2.0 has the one, a REST API and a load balancer the other.
    return isinstance(context, dict) and ("http" in context or "httpMethod" in event)

"""An endpoint as AWS Lambda calls it: `functions/health.handler` in serverless.yml."""

import asyncio
import os
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, cast

from shared import deadline
from shared.db import drivers
from shared.web.application import EndpointFile, application
from shared.web.endpoint import Endpoint, run_inline

_MARGIN = 0.5  # seconds of Lambda's time kept for the answer itself

Handler = Callable[[Any, "Context"], dict[str, Any]]


class Context(Protocol):
    """What we need of Lambda's context object."""

    def get_remaining_time_in_millis(self) -> int: ...


def lambda_handler(*endpoints: Endpoint | EndpointFile) -> Handler:
    """Give the function that Lambda calls for one endpoint, or for several behind one function.

    An event that is no HTTP request, such as a schedule that keeps the function warm, is acknowledged and ignored.
    """
    adapter: Callable[[Any, Any], Any] | None = None

    def make_adapter() -> Callable[[Any, Any], Any]:
        from mangum import Mangum

        asyncio.set_event_loop(_event_loop())  # it looks for one, and Python 3.12 and newer warn where there is none
        # Mangum would run start-up and shutdown around every request, and with them close the pool.
        app = cast(Any, application(endpoints))
        return Mangum(app, lifespan="off", text_mime_types=["text/", "application/json", "application/problem+json"])

    def handler(event: Any, context: Context) -> dict[str, Any]:
        nonlocal adapter
        if not _is_http(event):
            return {"ignored": True}
        # Mangum takes the thread's current loop, which any asyncio.run() of somebody else's has taken away.
        asyncio.set_event_loop(_event_loop())
        if adapter is None:
            adapter = make_adapter()
        token = run_inline.set(True)
        try:
            with deadline.within(context.get_remaining_time_in_millis() / 1000 - _MARGIN):
                answer: dict[str, Any] = adapter(event, context)
                return answer
        finally:
            run_inline.reset(token)

    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        # At import, where Lambda gives a whole processor and bills least.
        adapter = make_adapter()
        drivers.load("pg8000" if os.environ.get("DATABASE_DRIVER") == "pg8000" else "psycopg")
    return handler


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Make the one loop of all invocations."""
    return asyncio.new_event_loop()


def _is_http(event: Any) -> bool:
    """Tell a request from whatever else a function may be invoked with: any JSON value."""
    if not isinstance(event, dict):
        return False
    context = event.get("requestContext")
    # An HTTP API's payload 2.0 has the one, a REST API and a load balancer the other.
    return isinstance(context, dict) and ("http" in context or "httpMethod" in event)

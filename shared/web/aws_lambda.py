"""An endpoint as AWS Lambda calls it: `functions/health.handler` in serverless.yml."""

import os
from collections.abc import Callable
from typing import Any, Protocol, cast

from shared import deadline
from shared.web.application import EndpointFile, application
from shared.web.endpoint import Endpoint, run_inline

_MARGIN = 0.5  # seconds of Lambda's time kept for the answer itself

Handler = Callable[[dict[str, Any], "Context"], dict[str, Any]]


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

        # Mangum would run start-up and shutdown around every request, and with them close the pool.
        return Mangum(cast(Any, application(endpoints)), lifespan="off")

    def handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
        nonlocal adapter
        if "requestContext" not in event:
            return {"ignored": True}
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
        adapter = make_adapter()  # at import, where Lambda gives a whole processor and bills least
    return handler

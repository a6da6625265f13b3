"""What an invocation costs on Lambda: a primary-key read behind one event of an HTTP API, without a network between.

    python -m bench.lambda_handler

This project's handler beside one written by hand, and beside Mangum with Starlette. Writes microseconds of CPU for each
invocation and how they compare, in turns, because the machine's speed drifts.
"""

import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from mangum import Mangum
from psycopg.rows import dict_row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.peers import met, ratio
from bench.reads import ROWS, SQL, server
from shared import db, deadline
from shared.request_log import log
from shared.web import Endpoint, lambda_handler
from tests import results

INVOCATIONS = 300  # in each turn
TURNS = 15
GOAL = 1.6  # times the handler written by hand
BY_HAND = "a handler written by hand, on this pool"
ONE_CONNECTION = "a handler written by hand, on one connection"
OURS = "this project's lambda_handler"
LOGGING = f"{OURS}, with its line in the log"

Handler = Callable[[Any, Any], Any]
Costs = Mapping[str, list[float]]  # microseconds of CPU for each invocation, a number for each turn


class Context:
    """Lambda's context object, as far as it is used."""

    def get_remaining_time_in_millis(self) -> int:
        """Give what a function has at its start."""
        return 28_000


def main() -> None:
    """Measure, and keep the result."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # As on Lambda: the root logger has a handler, and takes warnings only.
        logging.getLogger().addHandler(logging.StreamHandler(stack.enter_context(Path(os.devnull).open("w"))))
        url = stack.enter_context(server(Path(folder)))
        os.environ.update(DATABASE_URL=url, APP_ENV="production", AWS_LAMBDA_FUNCTION_NAME="bench")
        connection = stack.enter_context(psycopg.connect(url, autocommit=True, row_factory=dict_row))
        peers: dict[str, Handler] = {
            BY_HAND: by_hand_on_the_pool,
            ONE_CONNECTION: by_hand(connection),
            OURS: ours(),
            LOGGING: ours(),
            "Mangum + Starlette, async def": mangum_async(connection),
            "Mangum + Starlette, def": mangum_def(connection),
        }
        costs = measure(peers)
        db.close_db()
    print(results.markdown(results.keep(report(costs))))


def measure(peers: Mapping[str, Handler]) -> Costs:
    """Give each its turn, TURNS times over after one to warm up."""
    costs: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(TURNS + 1):
        for name, handler in peers.items():
            # A handler written by hand writes no line for each request; ours does.
            log.setLevel(logging.INFO if name == LOGGING else logging.WARNING)
            before = time.process_time()
            for n in range(INVOCATIONS):
                answer = handler(event(n % ROWS + 1), Context())
                assert answer["statusCode"] == 200
            if turn:
                costs[name].append((time.process_time() - before) / INVOCATIONS * 1e6)
    return costs


def report(costs: Costs) -> results.Result:
    """Compare medians, and each turn with that of the handler written by hand."""
    middle = {name: statistics.median(values) for name, values in costs.items()}
    of = {name: ratio(values, costs[BY_HAND]) for name, values in costs.items()}
    line = statistics.median(a - b for a, b in zip(costs[LOGGING], costs[OURS], strict=True))
    return results.Result(
        name="lambda",
        page="docs/PERFORMANCE.md",
        command="python -m bench.lambda_handler",
        tables=[
            results.Table(
                "One invocation: an event of an HTTP API, a primary-key read, the answer",
                ("", "CPU, us", "x by hand, on this pool"),
                [(name, f"{middle[name]:.0f}", f"{of[name]:.2f}") for name in costs],
                f"The line in the log costs {line:.0f} us. The handlers written by hand write none.",
            ),
            results.Table(
                "Goal, without the line in the log",
                ("", "Goal", "Measured", "Met"),
                [(f"{OURS} / {BY_HAND}", f"<= {GOAL:.2f}", f"{of[OURS]:.2f}", met(of[OURS] <= GOAL))],
                "The median of the ratios of all turns.",
            ),
        ],
        plots=[
            results.Plot(
                "lambda.svg",
                "The CPU of one Lambda invocation, a bar for each handler",
                "CPU of an invocation, us",
                "",
                {"CPU": [(name, round(cost, 1)) for name, cost in middle.items()]},
                "bars",
            )
        ],
    )


def event(id: int) -> dict[str, Any]:
    """Make an event of an HTTP API, payload 2.0, with the headers that API Gateway passes on."""
    path = f"/api/items/{id}"
    return {
        "version": "2.0",
        "routeKey": "ANY /api/items/{id}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {
            "accept": "*/*",
            "content-length": "0",
            "host": "id.execute-api.us-east-1.amazonaws.com",
            "user-agent": "curl/8.5.0",
            "x-amzn-trace-id": "Root=1-5e6722a7-cc56a7b146db7ae02d4da47e",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "id.execute-api.us-east-1.amazonaws.com",
            "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "x"},
            "requestId": "id",
            "routeKey": "ANY /api/items/{id}",
            "stage": "$default",
        },
        "pathParameters": {"id": str(id)},
        "isBase64Encoded": False,
    }


def by_hand_on_the_pool(event: Any, context: Context) -> Any:
    """Do what must be done, within Lambda's time: what a handler adds to this is its own."""
    with deadline.within(context.get_remaining_time_in_millis() / 1000 - 0.5):
        row = db.fetch_one(SQL, {"id": int(event["pathParameters"]["id"])})
    return {"statusCode": 200 if row else 404, "headers": {"content-type": "application/json"}, "body": json.dumps(row)}


def by_hand(connection: psycopg.Connection[Any]) -> Handler:
    """Do the same without a pool, a deadline, or a word on what goes wrong."""

    def handler(event: Any, _context: Any) -> Any:
        row = connection.execute(SQL, {"id": int(event["pathParameters"]["id"])}).fetchone()
        return {
            "statusCode": 200 if row else 404,
            "headers": {"content-type": "application/json"},
            "body": json.dumps(row),
        }

    return handler


def ours() -> Handler:
    """Make the endpoint as docs/ENDPOINTS.md shows it."""
    endpoint = Endpoint("/api/items/{id}")

    @endpoint.get
    def read(id: int) -> Any:
        return db.fetch_one(SQL, {"id": id})

    return lambda_handler(endpoint)


def mangum_async(connection: psycopg.Connection[Any]) -> Handler:
    """Answer on the event loop, which the statement blocks; on Lambda nobody else waits."""

    async def read(request: Request) -> JSONResponse:
        return JSONResponse(connection.execute(SQL, {"id": int(request.path_params["id"])}).fetchone())

    return Mangum(Starlette(routes=[Route("/api/items/{id}", read)]), lifespan="off")


def mangum_def(connection: psycopg.Connection[Any]) -> Handler:
    """Answer as people write it, in a thread that Starlette starts anew for each event."""

    def read(request: Request) -> JSONResponse:
        return JSONResponse(connection.execute(SQL, {"id": int(request.path_params["id"])}).fetchone())

    return Mangum(Starlette(routes=[Route("/api/items/{id}", read)]), lifespan="off")


if __name__ == "__main__":
    main()

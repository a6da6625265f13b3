"""Tell what an endpoint sees from inside an instance."""

import os
import sys
import threading
from pathlib import Path
from typing import Any

from starlette.responses import Response

from shared import db, deadline
from shared.web import Endpoint, Request, lambda_handler

endpoint = Endpoint("/api/probe")


@endpoint.get
def look() -> dict[str, Any]:
    """Answer 200 with process, backend, threads, time, and the packages that are loaded."""
    return {
        "pid": os.getpid(),
        "backend": db.fetch_value("SELECT pg_backend_pid()"),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "left": deadline.remaining(),
        "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
        "bytecode": str(sys.modules[Endpoint.__module__].__cached__),
    }


@endpoint.post
def echo(request: Request, body: dict[str, str]) -> Response:
    """Answer 201 with bytes that are no text, two cookies, and what came."""
    response = Response(bytes([0, 255]) + body["text"].encode(), 201, media_type="application/octet-stream")
    response.headers["x-cookies"] = ",".join(f"{name}={value}" for name, value in request.cookies.items())
    response.headers["x-query"] = request.query_params["q"]
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


handler = lambda_handler(endpoint)

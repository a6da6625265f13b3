"""Lambda's Runtime API and as much of its Extensions API, for functions that run on this machine.

A client of Lambda's asks it for the next event and posts the answer (Lambda developer guide, "Using the Lambda runtime
API"). Several clients at once are the workers of one instance.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT = 60.0  # seconds for what must happen; never reached where all is well


@dataclass
class Invocation:
    """One event, and what became of it: an answer, or an error as the client reports it."""

    event: Any
    timeout: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    done: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    error: Any = None

    def wait(self) -> Any:
        """Return the answer. Raises AssertionError with the error that was reported instead."""
        assert self.done.wait(WAIT), "no answer"
        assert self.error is None, self.error
        return self.answer


class RuntimeAPI:
    """The server's side: events go in, answers come out."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.init_error: Any = None
        self.extensions: list[tuple[str, Any]] = []  # name and registration
        self.failed = threading.Event()  # a client reported that it could not start
        self.ended = threading.Event()
        self._events: queue.SimpleQueue[Invocation] = queue.SimpleQueue()
        self._running: dict[str, Invocation] = {}
        self._waiting = threading.Semaphore(0)  # one for each time that a client has asked for an event

    def send(self, event: Any, *, timeout: float = 28.0) -> Invocation:
        """Queue an event for the next client that asks; `timeout` seconds are what its function has."""
        invocation = Invocation(event, timeout)
        self._events.put(invocation)
        return invocation

    def invoke(self, event: Any, *, timeout: float = 28.0) -> Any:
        """Send an event and return the answer."""
        return self.send(event, timeout=timeout).wait()

    def wait_until_idle(self, clients: int = 1) -> None:
        """Return when so many clients have asked for an event since they were last waited for."""
        for _ in range(clients):
            assert self._waiting.acquire(timeout=WAIT), self.init_error or "no client asks for an event"

    def next(self) -> Invocation | None:
        """Give a client its event; None where the server ends before there is one."""
        self._waiting.release()
        while not self.ended.is_set():
            try:
                invocation = self._events.get(timeout=0.1)
            except queue.Empty:
                continue
            self._running[invocation.id] = invocation
            return invocation
        return None

    def finish(self, id: str, *, answer: Any = None, error: Any = None) -> None:
        invocation = self._running.pop(id)
        invocation.answer, invocation.error = answer, error
        invocation.done.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True  # 40 ms an event otherwise
    api: RuntimeAPI

    def do_GET(self) -> None:
        if self.path.endswith("/extension/event/next"):
            self.api.ended.wait()
            self._reply(200, {"eventType": "SHUTDOWN"})
            return
        invocation = self.api.next()
        if invocation is None:
            self.close_connection = True
            return
        self._reply(
            200,
            invocation.event,
            {
                "Lambda-Runtime-Aws-Request-Id": invocation.id,
                "Lambda-Runtime-Deadline-Ms": str(round((time.time() + invocation.timeout) * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:x",
                "Lambda-Runtime-Trace-Id": "Root=1-5e6722a7-cc56a7b146db7ae02d4da47e",
            },
        )

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        *_, id, what = self.path.split("/")
        if self.path.endswith("/extension/register"):
            self.api.extensions.append((self.headers["Lambda-Extension-Name"], body))
            self._reply(200, {}, {"Lambda-Extension-Identifier": str(uuid.uuid4())})
            return
        if self.path.endswith("/init/error"):
            self.api.init_error = body
            self.api.failed.set()
        elif what == "response":
            self.api.finish(id, answer=body)
        else:
            self.api.finish(id, error=body)
        self._reply(202, {"status": "OK"})

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed while they waited."""


@contextmanager
def serving() -> Iterator[RuntimeAPI]:
    """Run the API on a free port until the block ends."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        api = RuntimeAPI(f"127.0.0.1:{server.server_port}")
        handler.api = api  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            api.ended.set()
            server.shutdown()
            thread.join()

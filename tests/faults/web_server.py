"""The app in a web server, started as docs/PRODUCTION.md does, which a test can tell to end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tests.deploy.container import READY, STOPPED, Container, running
from tests.faults.activities import HEADERS, PATIENCE, Told
from tests.faults.instances import NO_ANSWER, NOTHING_LEFT, ROOT
from tests.servers.process import free_port

COMMAND = ["uvicorn", "tests.faults.activities:APP", "--timeout-graceful-shutdown", "20", "--no-access-log"]


class WebServer:
    """A server that listens."""

    def __init__(self, container: Container, url: str) -> None:
        self.container = container
        self._url = url
        self._ended = False

    def ask(self, method: str, path: str, body: Any) -> Told:
        """Send a request to its app; the diagnosis is in its log only."""
        begun = time.monotonic()
        headers = {**HEADERS, "host": "localhost"}
        try:
            response = httpx.request(method, self._url + path, json=body, headers=headers, timeout=PATIENCE)
        except httpx.TransportError:
            return Told(NO_ANSWER, time.monotonic() - begun)
        seconds = time.monotonic() - begun
        word = "answered" if response.status_code < 300 else str(response.status_code)
        return Told(word, seconds, response.text)

    def wait(self) -> int:
        """Wait for its end; give the exit code."""
        code = self.container.wait()
        self._ended = True
        return code

    def leave(self) -> dict[str, int]:
        """Tell it to end, and wait until it has closed its connections and did."""
        if not self._ended:
            self.container.terminate()
            assert self.wait() == STOPPED
        return NOTHING_LEFT


@contextmanager
def web_server(variables: Mapping[str, str]) -> Iterator[WebServer]:
    """Run a server with these variables, on a free port."""
    port = free_port()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running([*COMMAND, "--port", str(port)], {**os.environ, **variables, "PATH": programs}, ROOT) as container:
        container.wait_for(READY)
        yield WebServer(container, f"http://127.0.0.1:{port}")

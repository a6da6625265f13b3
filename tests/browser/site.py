"""The app as a server runs it, for a browser: with a database and a token, stopped and started again at will."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.deploy.container import READY, Container, running
from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "an operator's token of good length"


class Site:
    """`url` is where it answers. `start` and `stop` it; the address stays."""

    def __init__(self, database: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._database = database
        self._running = ExitStack()
        self._container: Container | None = None

    def start(self, token: str | None = TOKEN) -> None:
        """Start it, and return when it listens."""
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
        environ |= {"APP_ENV": "test", "DATABASE_URL": self._database}
        if token is not None:
            environ["OPERATOR_TOKEN"] = token
        command = [sys.executable, "-m", "uvicorn", "app:app", f"--port={self.port}", "--timeout-graceful-shutdown=1"]
        self._container = self._running.enter_context(running(command, environ, ROOT))
        self._container.wait_for(READY)

    def stop(self) -> None:
        """End it, with all that is open."""
        if self._container is not None:
            self._container.terminate()
            self._container.wait()
        self._running.close()
        self._container = None


@contextmanager
def serving(database: str, token: str | None = TOKEN) -> Iterator[Site]:
    """Serve for the length of the block."""
    site = Site(database)
    site.start(token)
    try:
        yield site
    finally:
        site.stop()

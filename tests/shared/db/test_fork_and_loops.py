"""A pool meets a fork, and event loops that come and go: each process its own connections, and no loop at all."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from shared import db
from shared.web import Endpoint
from shared.web.application import application
from tests.servers.postgres import Postgres
from tests.shared.db.conftest import Use
from tests.shared.db.instances import ROOT
from tests.shared.db.watching import sessions


@pytest.mark.parametrize(
    "how", ["with_an_idle_connection", "with_the_lock_held", "in_a_transaction", "by_multiprocessing"]
)
def test_a_forked_child_has_connections_of_its_own(database: str, driver: str, how: str) -> None:
    environ = {**os.environ, "DATABASE_URL": database, "DATABASE_DRIVER": driver, "APP_ENV": "test"}
    # Python 3.12 warns of every fork in a process with threads, which is what is tried here.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [*command, "-m", "tests.shared.db.programs.forking", how],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    pid, opened = seen["child"]
    assert pid != seen["parent"]
    assert opened == 1
    assert seen["afterwards"] == seen["parent"]
    assert seen["statistics"]["in_use"] == 0


def test_event_loops_come_and_go_and_the_pool_stays(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    endpoint = Endpoint("/api/pid")

    @endpoint.get
    def pid() -> dict[str, int]:
        return {"pid": db.fetch_value("SELECT pg_backend_pid()")}

    use(database)
    app = application([endpoint])
    first, second = (asyncio.run(get(app, "/api/pid")) for _ in range(2))
    assert first == second == {"pid": sessions(postgres, database)[0].pid}


async def get(app: Any, path: str) -> Any:
    """Ask an ASGI app, and return the JSON that it answers."""
    body = b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal body
        body += message.get("body", b"")

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "root_path": ""}
    await app(scope, receive, send)
    return json.loads(body)

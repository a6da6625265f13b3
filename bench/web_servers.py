"""The web servers that are compared: one process each, on a port of 127.0.0.1, as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import psutil

from bench import cold_start, node, processors
from bench.reads import server
from bench.wrk import Wrk
from ops.processes import die_with_parent
from tests.deploy import image, tools
from tests.servers.process import free_port

OURS = "this app, as its image runs it"
OURS_PLAIN = "this app, without httptools and uvloop"
ALONE = "this app, an endpoint without a database"
FASTAPI = "FastAPI + SQLAlchemy on uvicorn"
DRIZZLE = "Drizzle on postgres-js, bundled, on Node"
POSTGRES_JS = "postgres-js, bundled, on Node"
STARLETTE = "the server's limit: Starlette on uvicorn, async, no database"

_HERE = Path(__file__).parent
_ITEM = "/api/item/"
_WAIT = 20.0  # seconds until a server answers
_CONSTANT = '''"""Answer what an item looks like, without a database."""

from shared.web import Endpoint

endpoint = Endpoint("/api/constant/{id}")


@endpoint.get
def read(id: int) -> dict[str, object]:
    return {"id": id, "name": "item", "price": id}
'''
_STARLETTE = """from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def read(request):
    id = int(request.path_params["id"])
    return JSONResponse({"id": id, "name": "item", "price": id})


app = Starlette(routes=[Route("/api/item/{id}", read)])
"""


class Server(NamedTuple):
    """A server that answers: its process, and the URL to which a key is added."""

    process: psutil.Process
    url: str

    def cpu(self) -> float:
        """Give the seconds of processor that it has used, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def running(
    *,
    functions: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    limits: bool = True,
) -> Iterator[tuple[Wrk, dict[str, Server]]]:
    """Start them all, each on the same one processor, and a database on the others; give wrk, which is there too.

    `functions` are files added to the app's own, `variables` are its. `limits` adds what tells where the time goes.
    Raises tools.Missing where this machine lacks what runs, builds or loads one.
    """
    files = {"item.py": cold_start.ENDPOINT, "constant.py": _CONSTANT, **(functions or {})}
    processors.step_aside()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wrk, bundle, fastapi = Wrk(folder), node.bundle("server.mjs", folder), _HERE / "fastapi_peer"
        packages = tools.python_packages("fastapi", fastapi / "requirements-server.txt")
        url = stack.enter_context(server(folder))

        def uvicorn(directory: Path, environ: Mapping[str, str], *command: str) -> Server:
            port = free_port()
            environ = {**environ, "DATABASE_URL": url, "UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": str(port)}
            process = stack.enter_context(_process([*command, "app:app"], environ, directory))
            return _answering(process.pid, f"http://127.0.0.1:{port}{_ITEM}")

        root = image.lay_out(folder / "image")
        for name, text in files.items():
            (root / "app" / "functions" / name).write_text(text, "utf-8")
        environ = image.environment(root, **(variables or {}))
        ours = str(root / image.VENV.lstrip("/") / "bin" / "uvicorn")
        servers = {OURS: uvicorn(root / "app", environ, ours)}
        path = {"PATH": os.defpath}
        servers[FASTAPI] = uvicorn(fastapi, {**path, "PYTHONPATH": str(packages)}, sys.executable, "-m", "uvicorn")
        servers[DRIZZLE] = _on_node(stack, bundle, url)
        if limits:
            plain = {**environ, "UVICORN_LOOP": "asyncio", "UVICORN_HTTP": "h11"}
            servers[OURS_PLAIN] = uvicorn(root / "app", plain, ours)
            servers[POSTGRES_JS] = _on_node(stack, bundle, url, "postgres-js")
            servers[ALONE] = servers[OURS]._replace(url=servers[OURS].url.replace("item", "constant"))
            alone = folder / "starlette"
            alone.mkdir()
            (alone / "app.py").write_text(_STARLETTE, "utf-8")
            quiet = {**path, "UVICORN_ACCESS_LOG": "false"}
            servers[STARLETTE] = uvicorn(alone, quiet, sys.executable, "-m", "uvicorn")
        yield wrk, servers


def _begin() -> None:
    die_with_parent()
    processors.take_one()


@contextmanager
def _process(command: Sequence[str], environ: Mapping[str, str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command whose log nobody reads."""
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_begin,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _answering(pid: int, url: str) -> Server:
    """Wait until it answers with a row."""
    process = psutil.Process(pid)
    host, _, path = url.removeprefix("http://").partition("/")
    until = time.monotonic() + _WAIT
    while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        connection = HTTPConnection(host, timeout=_WAIT)
        try:
            connection.request("GET", f"/{path}7")
            status = connection.getresponse().status
        except ConnectionRefusedError:
            time.sleep(0.02)  # a port offers no event to wait for
            continue
        finally:
            connection.close()
        if status == 200:
            return Server(process, url)
        raise RuntimeError(f"{url} answered {status}")
    raise RuntimeError(f"{' '.join(process.cmdline())} does not answer at {url}")


def _on_node(stack: ExitStack, bundle: Path, url: str, *arguments: str) -> Server:
    # Nothing else of the environment: NODE_EXTRA_CA_CERTS, for one, makes Node slower.
    port = free_port()
    environ = {"DATABASE_URL": url, "PORT": str(port)}
    process = stack.enter_context(_process([str(tools.node()), str(bundle), *arguments], environ, bundle.parent))
    return _answering(process.pid, f"http://127.0.0.1:{port}{_ITEM}")

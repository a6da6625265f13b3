"""Endpoints as one ASGI app: routing, lifespan, and what every response carries."""

import ast
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import db, log, settings
from shared.errors import ConfigurationError
from shared.health import schedule
from shared.settings import Settings
from shared.web import draining, sigterm
from shared.web.endpoint import Endpoint
from shared.web.problem import problem_from
from shared.web.reply import response_from_problem
from shared.web.router import Router


class EndpointFile:
    """An endpoint's file, read but not imported until its first request, so that none pays for another's imports."""

    def __init__(self, file: Path, module: str) -> None:
        self.module = module
        tree = ast.parse(file.read_bytes(), filename=str(file))
        self.path = _endpoint_path(tree, file)
        self.summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        self._endpoint: Endpoint | None = None

    def load(self) -> Endpoint:
        """Import the module and give its endpoint."""
        if self._endpoint is None:
            endpoint = importlib.import_module(self.module).endpoint
            assert isinstance(endpoint, Endpoint)
            self._endpoint = endpoint
        return self._endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            endpoint = self.load()
        except Exception as error:  # one endpoint that cannot be imported must not take the others down
            await response_from_problem(problem_from(error))(scope, receive, send)
            return
        await endpoint(scope, receive, send)


def endpoints_in(folder: Path, package: str) -> list[EndpointFile]:
    """Read the endpoint files of a package, fixed paths before those with parameters, as they must be matched.

    A file whose name begins with _ is none: a helper of others. Raises TypeError where two files name the same path.
    """
    files = [
        EndpointFile(file, f"{package}.{file.stem}")
        for file in sorted(folder.glob("*.py"))
        if not file.stem.startswith("_")
    ]
    files.sort(key=lambda file: (file.path.count("{"), file.path))
    for one, other in pairwise(files):
        if one.path == other.path:
            raise TypeError(f"{one.module} and {other.module} both answer at {one.path}")
    return files


def _endpoint_path(tree: ast.Module, file: Path) -> str:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["endpoint"]:
            call = node.value
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                return str(call.args[0].value)
    raise TypeError(f'{file.name} has no line `endpoint = Endpoint("/api/...")` with its path in it')


def application(endpoints: Sequence[EndpointFile | Endpoint]) -> ASGIApp:
    """Make one ASGI app that answers on every endpoint's path."""
    return Envelope(Router(endpoints, _lifespan))


@asynccontextmanager
async def _lifespan(_app: object) -> AsyncIterator[None]:
    with sigterm.second_one_ends(), draining.at_sigterm(), schedule.looking_now_and_then():
        yield
        db.close_db()


def headers_of_all(current: Settings | None) -> list[tuple[bytes, bytes]]:
    """Give the headers that every response carries; without settings, where they are wrong, those that need none."""
    headers = [
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"referrer-policy", b"no-referrer"),
    ]
    if current is not None and current.is_production_like:
        headers.append((b"strict-transport-security", b"max-age=63072000"))
    if current is not None and current.commit:
        headers.append((b"x-deployed-commit", current.commit.encode("ascii", "replace")))
    return headers


class Envelope:
    """What every response carries: no caching, security headers, the deployed commit, CORS where it is asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app
        self._app: ASGIApp | None = None
        self._headers: list[tuple[bytes, bytes]] = []

    def _prepare(self) -> ASGIApp:
        # At the first request, not at import: a wrong variable must not keep the health endpoint from saying so.
        self._app = self._inner
        log.configure()
        try:
            current = settings.get_settings()
        except ConfigurationError as error:
            problem_from(error)
            self._headers = headers_of_all(None)
            return self._inner
        self._headers = headers_of_all(current)
        if current.cors_allow_origins:
            self._app = CORSMiddleware(
                self._inner,
                allow_origins=current.cors_allow_origins,
                allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
                allow_credentials="*" not in current.cors_allow_origins,
            )
        return self._app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        app = self._app or self._prepare()
        is_head = scope["method"] == "HEAD"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [header for header in self._headers if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await app(scope, receive, send_with_headers)

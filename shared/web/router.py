"""From a path to its endpoint.

Starlette's own router asks one route after another, in two middlewares, and costs as much as the rest of a request
without a database. Fixed paths are looked up here; only those with parameters are tried in turn.
"""

from collections.abc import Sequence
from typing import Protocol

from starlette.routing import Router as StarletteRouter
from starlette.routing import compile_path
from starlette.types import Lifespan, Receive, Scope, Send

from shared.web.problem import Problem
from shared.web.reply import response_from_problem


class Routed(Protocol):
    """An ASGI app with the path at which it answers."""

    path: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Router:
    """Answer on each endpoint's path, and elsewhere that nothing is there; of paths with parameters the first fits."""

    def __init__(self, endpoints: Sequence[Routed], lifespan: Lifespan[StarletteRouter]) -> None:
        self._fixed = {endpoint.path: endpoint for endpoint in endpoints if "{" not in endpoint.path}
        self._patterns = [(compile_path(endpoint.path)[0], endpoint) for endpoint in endpoints if "{" in endpoint.path]
        self._others = StarletteRouter(lifespan=lifespan)  # what is no request: lifespan, and web sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        path = _path(scope)
        await (self._fixed.get(path) or self._match(path, scope) or _nothing)(scope, receive, send)

    def _match(self, path: str, scope: Scope) -> Routed | None:
        """Find the endpoint whose pattern fits, and note the path's parameters."""
        for pattern, endpoint in self._patterns:
            found = pattern.match(path)
            if found is not None:
                scope["path_params"] = found.groupdict()
                return endpoint
        return None


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await response_from_problem(Problem(404, "There is nothing at this address."))(scope, receive, send)


def _path(scope: Scope) -> str:
    """Give the path below the one at which the app is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path

"""An ASGI app from plain functions, one for each method of one path.

    endpoint = Endpoint("/api/notes/{id}")

    @endpoint.get
    def read(id: int) -> Row: ...

    @endpoint.put
    def replace(id: int, body: NewNote) -> None: ...

A function asks for what it needs by the names of its parameters: those of the path, converted as annotated (what
cannot be converted is not found), `body`, decoded and checked against its annotation, and `request`. It returns a JSON
body, a Reply, a Response, or nothing. It runs in a thread, so it may block; docs/decisions/0006 says why there is no
async face.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from shared import deadline, settings
from shared.errors import ConfigurationError
from shared.web.body import decode_json, read_body
from shared.web.problem import Problem, problem_from
from shared.web.reply import response_from, response_from_problem

Function = TypeVar("Function", bound=Callable[..., Any])

# Threads that wait for a connection cost little; the pool's own limits are far below.
_THREADS = 40
_PROBE_THREADS = 40  # apart from the others', and started only when so many ask at once
_executors: dict[bool, ThreadPoolExecutor] = {}

# True where one request runs at a time, as on Lambda: a thread for it would only cost.
run_inline: contextvars.ContextVar[bool] = contextvars.ContextVar("run_inline", default=False)


class _Method(NamedTuple):
    function: Callable[..., Any]
    converters: dict[str, type]
    body: Any  # the annotation, or inspect.Parameter.empty
    wants_request: bool


class Endpoint:
    """One path and the functions that answer on it. A `probe` answers even when every other thread is busy."""

    def __init__(self, path: str, *, probe: bool = False) -> None:
        self.path = path
        self.probe = probe
        self._methods: dict[str, _Method] = {}

    def get(self, function: Function) -> Function:
        """Answer GET, and HEAD, with this function."""
        return self._register("GET", function)

    def post(self, function: Function) -> Function:
        """Answer POST with this function."""
        return self._register("POST", function)

    def put(self, function: Function) -> Function:
        """Answer PUT with this function."""
        return self._register("PUT", function)

    def patch(self, function: Function) -> Function:
        """Answer PATCH with this function."""
        return self._register("PATCH", function)

    def delete(self, function: Function) -> Function:
        """Answer DELETE with this function."""
        return self._register("DELETE", function)

    def _register(self, method: str, function: Function) -> Function:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__name__} must be a plain function: write def, not async def")
        parameters = dict(inspect.signature(function, eval_str=True).parameters)
        body = parameters.pop("body", None)
        wants_request = parameters.pop("request", None) is not None
        unknown = [name for name in parameters if f"{{{name}}}" not in self.path]
        if unknown:
            raise TypeError(f"{function.__name__} asks for {', '.join(unknown)}, which {self.path} does not name")
        converters = {
            name: str if parameter.annotation is parameter.empty else parameter.annotation
            for name, parameter in parameters.items()
        }
        for name, kind in converters.items():
            if not isinstance(kind, type):
                raise TypeError(f"{function.__name__} must annotate {name} with a class such as int, str or uuid.UUID")
        if body is not None and body.annotation is inspect.Parameter.empty:
            raise TypeError(f"{function.__name__} must annotate body with the shape that it expects")
        annotation = inspect.Parameter.empty if body is None else body.annotation
        self._methods[method] = _Method(function, converters, annotation, wants_request)
        return function

    @property
    def allow(self) -> str:
        """Give the methods that are answered, as the Allow header lists them."""
        return ", ".join(sorted([*self._methods, *(["HEAD"] if "GET" in self._methods else [])]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; `path_params` of the scope holds the path's parameters."""
        try:
            response = response_from(await self._answer(scope, receive))
        except (Exception, SystemExit) as error:  # the last place where an endpoint's error can become an answer
            response = response_from_problem(problem_from(error))
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Any:
        name = "GET" if scope["method"] == "HEAD" else scope["method"]
        method = self._methods.get(name)
        if method is None:
            raise Problem(405, f"{scope['method']} is not answered here.", headers={"Allow": self.allow})
        arguments = _convert(scope.get("path_params", {}), method.converters)
        if method.body is not inspect.Parameter.empty:
            arguments["body"] = decode_json(await read_body(scope, receive), method.body)
        if method.wants_request:
            arguments["request"] = Request(scope)
        with deadline.within(_request_timeout()):
            if run_inline.get():
                return method.function(**arguments)
            call = contextvars.copy_context().run
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_executor(self.probe), lambda: call(method.function, **arguments))


def _convert(values: dict[str, str], converters: dict[str, type]) -> dict[str, Any]:
    try:
        return {name: kind(values[name]) for name, kind in converters.items()}
    except (ValueError, ArithmeticError):  # the latter is decimal's
        raise Problem(404, "There is nothing at this address.") from None


def _request_timeout() -> float:
    try:
        return settings.get_settings().request_timeout
    except ConfigurationError:
        return 25.0  # the endpoint itself will report what is wrong


def _executor(probe: bool) -> ThreadPoolExecutor:
    if probe not in _executors:
        _executors[probe] = ThreadPoolExecutor(_PROBE_THREADS if probe else _THREADS, "probe" if probe else "endpoint")
    return _executors[probe]

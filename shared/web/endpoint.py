"""An ASGI app from plain functions, one for each method of one path.

    endpoint = Endpoint("/api/notes/{id}")

    @endpoint.get
    def read(id: int) -> Row: ...

    @endpoint.put
    def replace(id: int, body: NewNote) -> None: ...

A function asks for what it needs by the names of its parameters: those of the path, converted as annotated (what
cannot be converted is not found), `body`, decoded and checked against its annotation, `user`, who must be signed in
(shared/web/sessions.py), and `request`. It returns a JSON body, a Reply, a Response, or nothing. It runs in a thread,
so it may block; docs/decisions/0006 says why there is no async face.
"""

import contextvars
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared import deadline, request_log, settings
from shared.errors import ConfigurationError
from shared.web import vercel
from shared.web.body import decode_json, read_body
from shared.web.problem import Problem, problem_from
from shared.web.reply import response_from, response_from_problem
from shared.web.sessions import SignedIn, signed_in
from shared.web.threads import Threads

Function = TypeVar("Function", bound=Callable[..., Any])

# Threads that wait for a connection cost little; the pool's own limits are far below.
_THREADS = 40
_PATIENCE = 2.0  # seconds that a request waits for a thread, until it is told to come again
_threads = Threads("endpoint", _THREADS, _PATIENCE)
# Apart from the others', and started only when so many ask at once.
_probe_threads = Threads("probe", _THREADS, _PATIENCE)
_IDENTIFYING = frozenset(name.encode() for name in request_log.ID_HEADERS)

# True where one request runs at a time, as on Lambda: a thread for it would only cost.
run_inline: contextvars.ContextVar[bool] = contextvars.ContextVar("run_inline", default=False)


class Method(NamedTuple):
    """What answers one method, and what it asks for."""

    function: Callable[..., Any]
    converters: dict[str, type]
    body: Any  # the annotation, or inspect.Parameter.empty
    wants_request: bool
    user: type[SignedIn] | None  # who may call; None: anybody


class Endpoint:
    """One path and the functions that answer on it. A `probe` answers even when every other thread is busy."""

    def __init__(self, path: str, *, probe: bool = False) -> None:
        self.path = path
        self.probe = probe
        self.methods: dict[str, Method] = {}

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
        user = None if "{user}" in self.path else parameters.pop("user", None)
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
        if user is not None and not (isinstance(user.annotation, type) and issubclass(user.annotation, SignedIn)):
            raise TypeError(f"{function.__name__} must annotate user with SignedIn, User or Admin")
        self.methods[method] = Method(
            function,
            converters,
            body=inspect.Parameter.empty if body is None else body.annotation,
            wants_request=wants_request,
            user=None if user is None else user.annotation,
        )
        return function

    @property
    def allow(self) -> str:
        """Give the methods that are answered, as the Allow header lists them."""
        return ", ".join(sorted([*self.methods, *(["HEAD"] if "GET" in self.methods else [])]))

    def answer_inline(
        self, method: str, path_params: Mapping[str, str], headers: Mapping[str, str], limit: float
    ) -> Response | None:
        """Answer in the caller's thread, without ASGI; None, and nothing done, where it takes the whole request.

        That is a body, the request object, or a method that is not the function's own. `headers` have lower-case names;
        `limit` is the platform's, in seconds.
        """
        found = self.methods.get(method)
        if found is None or found.wants_request or found.user or found.body is not inspect.Parameter.empty:
            return None
        with request_log.logged(method, self.path, headers, probe=self.probe) as work:
            try:
                arguments = _convert(path_params, found.converters)
                with deadline.within(min(limit, _request_timeout())):
                    response = response_from(found.function(**arguments))
            except (Exception, SystemExit) as error:
                response = response_from_problem(problem_from(error))
            work.status = response.status_code
            return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; `path_params` of the scope holds the path's parameters."""
        with request_log.logged(scope["method"], self.path, _identifying(scope), probe=self.probe) as work:
            try:
                response = response_from(await self._answer(scope, receive))
            except (Exception, SystemExit) as error:  # the last place where an endpoint's error can become an answer
                response = response_from_problem(problem_from(error))
            work.status = response.status_code
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Any:
        name = "GET" if scope["method"] == "HEAD" else scope["method"]
        method = self.methods.get(name)
        if method is None:
            raise Problem(405, f"{scope['method']} is not answered here.", headers={"Allow": self.allow})
        arguments = _convert(scope.get("path_params", {}), method.converters)
        raw = None if method.body is inspect.Parameter.empty else await read_body(scope, receive)
        if method.wants_request:
            arguments["request"] = Request(scope)

        def call() -> Any:
            if method.user is not None:  # first: who may not call learns nothing about bodies
                arguments["user"] = signed_in(Request(scope), method.user)
            if raw is not None:
                arguments["body"] = decode_json(raw, method.body)
            return method.function(**arguments)

        with deadline.within(_request_timeout()):
            if run_inline.get():
                return call()
            return await (_probe_threads if self.probe else _threads).run(call)


def _identifying(scope: Scope) -> dict[str, str]:
    """Give the headers that may name the request; to decode all of them would cost more than the log's line."""
    return {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _IDENTIFYING}


def _convert(values: Mapping[str, str], converters: dict[str, type]) -> dict[str, Any]:
    try:
        return {name: kind(values[name]) for name, kind in converters.items()}
    except (ValueError, ArithmeticError):  # the latter is decimal's
        raise Problem(404, "There is nothing at this address.") from None


def _request_timeout() -> float:
    try:
        limit = settings.get_settings().request_timeout
    except ConfigurationError:
        limit = 25.0  # the endpoint itself will report what is wrong
    left = vercel.remaining()
    return limit if left is None else min(limit, left)

"""The endpoints as an OpenAPI 3.1 document, from what their functions say: path, annotations, docstrings.

The statuses are those that a docstring's first line names, and those that follow from what a function asks for.
"""

import http
import inspect
import re
from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

from starlette.responses import Response

from shared import __version__
from shared.web.application import EndpointFile
from shared.web.endpoint import Endpoint, Method
from shared.web.reply import Reply

_NOTHING = inspect.Parameter.empty
_REFS = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "description": "What went wrong (RFC 9457)",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
    },
}


def document(endpoints: Iterable[Endpoint | EndpointFile], *, cookie: str) -> dict[str, Any]:
    """Describe the endpoints; `cookie` is the name of the one that holds a session."""
    loaded = [endpoint.load() if isinstance(endpoint, EndpointFile) else endpoint for endpoint in endpoints]
    schemas = _Schemas(method for endpoint in loaded for method in endpoint.methods.values())
    return {
        "openapi": "3.1.0",
        "info": {"title": "Endpoints", "version": __version__},
        "paths": {
            endpoint.path: {name.lower(): _operation(method, schemas) for name, method in endpoint.methods.items()}
            for endpoint in loaded
        },
        "components": {
            "schemas": {**schemas.components, "Problem": _PROBLEM},
            "securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": cookie}},
        },
    }


def _operation(method: Method, schemas: "_Schemas") -> dict[str, Any]:
    function = method.function
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    operation: dict[str, Any] = {
        "operationId": f"{function.__module__.rpartition('.')[2]}_{function.__name__}",
        "summary": summary,
        "responses": _responses(method, summary, schemas),
    }
    if method.converters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schemas.of(kind)}
            for name, kind in method.converters.items()
        ]
    if method.body is not _NOTHING:
        content = {"application/json": {"schema": schemas.of(method.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    if method.user is not None:
        operation["security"] = [{"session": []}]
    return operation


def _responses(method: Method, summary: str, schemas: "_Schemas") -> dict[str, Any]:
    answers = _answers(method)
    named = {int(status) for status in re.findall(r"\b[2-5]\d\d\b", summary)}
    if not any(status < 400 for status in named):
        named.add(204 if answers is None else 200)
    implied = set()
    if method.converters:
        implied.add(404)
    if method.body is not _NOTHING:
        implied |= {400, 413, 415, 422}
    if method.user is not None:
        implied |= {401, 403}
    responses: dict[str, Any] = {}
    for status in sorted(named | implied):
        content: dict[str, Any] = {}
        if status not in (204, 304) and (status < 400 or (answers is Any and status in named)):
            media_type = "*/*" if answers is Response else "application/json"
            content[media_type] = {"schema": schemas.of(answers)}
        if status >= 400:
            content["application/problem+json"] = {"schema": {"$ref": _REFS.format(name="Problem")}}
        responses[str(status)] = {
            "description": http.HTTPStatus(status).phrase,
            **({"content": content} if content else {}),
        }
    problem = {"application/problem+json": {"schema": {"$ref": _REFS.format(name="Problem")}}}
    responses["default"] = {"description": "Any other error", "content": problem}
    return responses


def _answers(method: Method) -> Any:
    """Give the type of the JSON that a function answers: None for no body, Any where nothing tells, or Response."""
    annotation = inspect.signature(method.function, eval_str=True).return_annotation
    if get_origin(annotation) is Annotated and get_args(annotation)[0] is Reply:
        return get_args(annotation)[1]
    if annotation in (_NOTHING, Reply):
        return Any
    return Response if isinstance(annotation, type) and issubclass(annotation, Response) else annotation


class _Schemas:
    """The JSON schemas of all types that the methods name, those with a name under `components`."""

    def __init__(self, methods: Iterable[Method]) -> None:
        import msgspec  # here, so that only who wants the document loads it

        self._schema_components = msgspec.json.schema_components
        self._kinds: list[Any] = []
        for method in methods:
            for kind in (*method.converters.values(), method.body, _answers(method)):
                if kind not in (None, _NOTHING) and kind not in self._kinds and self._is_known(kind):
                    self._kinds.append(kind)
        schemas, self.components = self._schema_components(self._kinds, ref_template=_REFS)
        self._schemas = list(schemas)

    def _is_known(self, kind: Any) -> bool:
        try:
            self._schema_components([kind])
        except TypeError:
            return False
        return True

    def of(self, kind: Any) -> dict[str, Any]:
        """Give the schema of a type; that of anything where the type is none of JSON's."""
        return self._schemas[self._kinds.index(kind)] if kind in self._kinds else {}

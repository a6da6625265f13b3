"""A JSON request body: read within limits, decoded and checked against a type."""

from typing import Any

from starlette.types import Receive, Scope

from shared.web.problem import Problem

MAX_BODY = 1024 * 1024  # bytes; Lambda takes 6 MB, Vercel 4.5 MB, and JSON for a database seldom needs one


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Read the whole body of a JSON request. Raises Problem 413 where it is too large, 415 where it is not JSON."""
    headers = dict(scope["headers"])
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise Problem(415, "The body must be JSON, sent with Content-Type: application/json.")
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "The body ended before it was complete.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise Problem(413, f"The body is larger than {MAX_BODY} bytes.")
    return bytes(body)


def decode_json(body: bytes, kind: Any) -> Any:
    """Decode and check against `kind`, a dataclass, TypedDict or msgspec.Struct.

    Raises Problem 400 where it is not JSON, 422 where its shape is wrong, saying what and where.
    """
    import msgspec  # here, so that an endpoint without a body does not load it

    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem(422, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "The body is not valid JSON.") from None

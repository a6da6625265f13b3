"""The operator's token: who may see the inside of the database, and call what operators call."""

import hmac

from starlette.requests import Request

from shared import settings
from shared.web.problem import Problem


def require_operator(request: Request) -> None:
    """Raise Problem 401 unless the request shows OPERATOR_TOKEN as its bearer token (RFC 6750); unset, nobody may."""
    require_token(request, settings.get_settings().operator_token)


def require_token(request: Request, expected: str | None) -> None:
    """Raise Problem 401 unless the request shows this bearer token. Without one nobody may."""
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    # Compared as bytes and in full, whatever was shown, so that the time it takes tells nothing.
    is_right = hmac.compare_digest(shown.strip().encode("latin-1"), (expected or "").encode())
    if expected is None or scheme.lower() != "bearer" or not is_right:
        raise Problem(401, "The operator's token is needed.", headers={"WWW-Authenticate": 'Bearer realm="operator"'})

"""The operator's browser: a cookie that the token signed, so that it holds while the database is down.

Its value is the time at which it ends and an HMAC (RFC 2104) over it. Nothing is stored: another OPERATOR_TOKEN signs
everybody out, and signing out is the browser's forgetting.
"""

import base64
import hmac
import re
import time
from datetime import timedelta

from starlette.requests import Request

from shared import settings
from shared.web import tries
from shared.web.origin import check_origin
from shared.web.problem import Problem
from shared.web.sessions import is_secure

LIFETIME = timedelta(hours=12)

_VALUE = re.compile(r"([1-9][0-9]{9,10})\.([A-Za-z0-9_-]{43})")  # Unix time; SHA-256 in base64url


def is_signed_in(request: Request) -> bool:
    """Tell whether the request comes with a cookie of ours that has not ended. Without a token nobody is signed in."""
    token = settings.get_settings().operator_token
    match = _VALUE.fullmatch(request.cookies.get(_name(request), ""))
    if token is None or match is None:
        return False
    end = int(match[1])
    # Compared first and in full: what it says counts for nothing until it is known to be ours.
    is_ours = hmac.compare_digest(match[2], _signature(token, end))
    return is_ours and 0 < end - time.time() <= LIFETIME.total_seconds()


def sign_in(request: Request, shown: str) -> dict[str, str]:
    """Give the header that has the browser keep a new cookie.

    Raises Problem 401 where the token is another or not set, 403 where a page of another origin asks, 429 after too
    many tries.
    """
    check_origin(request)
    tries.count(request)
    token = settings.get_settings().operator_token
    # As bytes: compare_digest takes no text beyond ASCII.
    is_right = hmac.compare_digest(shown.strip().encode(), (token or "").encode())
    if token is None or not is_right:
        raise Problem(401, "That is not the operator's token.", headers={"WWW-Authenticate": "Cookie"})
    tries.forgive(request)
    seconds = int(LIFETIME.total_seconds())
    end = int(time.time()) + seconds
    return _set_cookie(request, f"{end}.{_signature(token, end)}", seconds)


def sign_out(request: Request) -> dict[str, str]:
    """Give the header that has the browser forget the cookie. Raises Problem 403 where another origin's page asks."""
    check_origin(request)
    return _set_cookie(request, "", 0)


def _set_cookie(request: Request, value: str, seconds: int) -> dict[str, str]:
    secure = "Secure; " if is_secure(request) else ""
    return {"Set-Cookie": f"{_name(request)}={value}; Max-Age={seconds}; Path=/; {secure}HttpOnly; SameSite=Strict"}


def _name(request: Request) -> str:
    # Browsers take a __Host- cookie only from HTTPS, for this host alone and without a Domain (RFC 6265bis, 4.1.3.2).
    return "__Host-operator" if is_secure(request) else "operator"


def _signature(token: str, end: int) -> str:
    digest = hmac.digest(token.encode(), f"operator's page until {end}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")

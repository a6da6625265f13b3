"""Whose page a browser's request comes from: what may change something must not be asked for by a stranger's page.

Cookies travel with requests that other sites make (cross-site request forgery). SameSite=Lax keeps them from most;
this is the second door. Programs that are no browsers send neither header, and have no cookies of somebody else.
"""

from urllib.parse import urlsplit

from starlette.requests import Request

from shared import settings
from shared.web.problem import Problem

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110, 9.2.1


def check_origin(request: Request) -> None:
    """Raise Problem 403 where a page of another origin makes a request that may change something.

    Browsers tell by Sec-Fetch-Site (W3C Fetch Metadata), older ones by Origin. Origins named in CORS_ALLOW_ORIGINS may;
    `*` names none.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        return
    if site in ("same-origin", "none"):
        return
    if origin is not None and origin in settings.get_settings().cors_allow_origins:
        return
    if site is None and origin is not None and _host(origin) == request.headers.get("host", "").lower():
        return
    raise Problem(403, "This request comes from a page of another origin.")


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None

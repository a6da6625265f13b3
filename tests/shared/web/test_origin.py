"""Requests that other pages make."""

import pytest
from starlette.requests import Request

from shared.web import Problem
from shared.web.origin import check_origin
from tests.shared.web.conftest import Use

HOST = {"host": "app.example.com"}


def request(method: str = "POST", **headers: str) -> Request:
    named = {**HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Request(
        {
            "type": "http",
            "method": method,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        }
    )


ALLOWED = {
    "a program that is no browser": {},
    "its own page": {"sec_fetch_site": "same-origin", "origin": "https://app.example.com"},
    "its own page behind a proxy that changes the host": {
        "sec_fetch_site": "same-origin",
        "origin": "https://www.example.com",
    },
    "the address bar": {"sec_fetch_site": "none"},
    "its own page in an old browser": {"origin": "https://app.example.com"},
    "its own page in capitals": {"origin": "https://APP.example.com"},
    "a page that is named": {"sec_fetch_site": "cross-site", "origin": "https://front.example.net"},
    "a page that is named, in an old browser": {"origin": "https://front.example.net"},
}
REFUSED = {
    "another site": {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
    "another subdomain": {"sec_fetch_site": "same-site", "origin": "https://blog.example.com"},
    "another site that says no more": {"sec_fetch_site": "cross-site"},
    "another site in an old browser": {"origin": "https://evil.example"},
    "another port": {"origin": "https://app.example.com:8443"},
    "a page without an origin": {"origin": "null"},
    "a host that only begins so": {"origin": "https://app.example.com.evil.example"},
    "a name and password": {"origin": "https://app.example.com@evil.example"},
    "nothing": {"origin": ""},
    "nothing but a scheme": {"origin": "https://"},
    "half an address": {"origin": "https://["},
    "what no browser says": {"sec_fetch_site": "same-origin, cross-site"},
}


@pytest.mark.parametrize("headers", ALLOWED.values(), ids=ALLOWED.keys())
def test_allowed(use: Use, headers: dict[str, str]) -> None:
    use(CORS_ALLOW_ORIGINS="https://front.example.net")
    check_origin(request(**headers))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED.keys())
def test_refused(use: Use, method: str, headers: dict[str, str]) -> None:
    use(CORS_ALLOW_ORIGINS="https://front.example.net")
    with pytest.raises(Problem) as caught:
        check_origin(request(method, **headers))
    assert caught.value.status == 403


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED.keys())
def test_reading_is_never_refused(use: Use, headers: dict[str, str]) -> None:
    use()
    check_origin(request("GET", **headers))


def test_a_star_names_nobody(use: Use) -> None:
    """With it browsers send no cookies where they ask first; a form asks nobody."""
    use(CORS_ALLOW_ORIGINS="*")
    with pytest.raises(Problem):
        check_origin(request(origin="https://evil.example"))


def test_a_request_without_a_host(use: Use) -> None:
    use()
    bare = Request({"type": "http", "method": "POST", "headers": [(b"origin", b"https://")]})
    with pytest.raises(Problem):
        check_origin(bare)

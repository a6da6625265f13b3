"""Whose address it is, and what nobody can make it."""

import pytest
from starlette.requests import Request

from shared.web.client_address import client_address, network_of


def request(client: str | None, **headers: str) -> Request:
    return Request(
        {
            "type": "http",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "client": None if client is None else (client, 50000),
        }
    )


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::0:7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),  # a load balancer appends whom it saw
        ("testclient", None),
        ("", None),
        (None, None),
        ("192.0.2.7:8080", None),
    ],
)
def test_of_the_connection(client: str | None, expected: str | None) -> None:
    assert client_address(request(client)) == expected


def test_headers_that_anybody_may_write_are_not_believed() -> None:
    spoofed = request("192.0.2.7", x_forwarded_for="6.6.6.6", x_real_ip="6.6.6.6", x_vercel_forwarded_for="6.6.6.6")
    assert client_address(spoofed) == "192.0.2.7"


def test_on_vercel_it_is_the_platform_s_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERCEL", "1")
    assert client_address(request("10.0.0.1", x_vercel_forwarded_for="192.0.2.7", x_forwarded_for="6.6.6.6")) == (
        "192.0.2.7"
    )
    assert client_address(request("10.0.0.1", x_forwarded_for="6.6.6.6")) == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        (None, "unknown"),
    ],
)
def test_what_one_person_holds(address: str | None, network: str) -> None:
    assert network_of(address) == network

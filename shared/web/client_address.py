"""The address of who sent a request: from the platform, never from what anybody may write.

| Where | Source |
| --- | --- |
| Vercel | `x-vercel-forwarded-for`, which Vercel sets itself, whatever was sent |
| Lambda | API Gateway's `sourceIp`; behind a load balancer the last of `x-forwarded-for`, which it appended |
| uvicorn | the connection; `x-forwarded-for` only from the proxies named in `--forwarded-allow-ips` |
"""

import ipaddress
import os

from starlette.requests import Request

_VERCEL = "x-vercel-forwarded-for"


def client_address(request: Request) -> str | None:
    """Give the client's IP address; None where it is not known."""
    text = request.headers.get(_VERCEL) if os.environ.get("VERCEL") else None
    if text is None and request.client is not None:
        text = request.client.host or ""
    try:
        address = ipaddress.ip_address((text or "").rpartition(",")[2].strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        # PostgreSQL's inet knows no zone, and who comes by IPv4 is the same by whichever notation.
        return str(address.ipv4_mapped or ipaddress.IPv6Address(int(address)))
    return str(address)


def network_of(address: str | None) -> str:
    """Give what one person can be expected to hold: an IPv4 address, or the /64 of an IPv6 address."""
    if address is None or ":" not in address:
        return address or "unknown"
    return str(ipaddress.ip_network((address, 64), strict=False))

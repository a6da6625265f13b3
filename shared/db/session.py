"""What a connection of ours asks of its session, in the start-up packet, where it costs no round trip.

The server's own timeouts end what a frozen or vanished instance cannot. They override `ALTER ROLE ... SET`; the URL's
own `options` override them. Behind a transaction pooler they cannot be sent: there they are defaults of the role.
"""

import os
import re
import secrets
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

MARGIN = 2.0  # seconds that the server waits longer than we do, so that our own limit comes first
_LOCK_TIMEOUT = 10.0  # seconds; a request that waits longer for a lock keeps others waiting too
_NAME_LIMIT = 63  # bytes of application_name that the server keeps (NAMEDATALEN - 1)

# How soon we notice that the server is gone while we wait without a deadline: after 30 s (libpq's names and units,
# manual 34.1.2). Unacknowledged data suspends the keepalives, hence the last.
KEEPALIVES: Mapping[str, str] = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

# The same for the server, whose client may be beyond a dead network: for sessions that no limit below ends.
SERVER_KEEPALIVES: Mapping[str, str] = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


class SessionLimits(NamedTuple):
    """Server-side limits in seconds (PostgreSQL manual 19.11 and 19.3)."""

    statement_timeout: float
    lock_timeout: float
    idle_in_transaction_session_timeout: float
    idle_session_timeout: float
    tcp_user_timeout: float

    def settings(self) -> dict[str, str]:
        """Give them as the server's settings, in milliseconds."""
        return {name: str(int(seconds * 1000)) for name, seconds in self._asdict().items()}


def limits(*, request_timeout: float, idle_timeout: float) -> SessionLimits:
    """Derive the limits from how long a request may take and how long we keep a connection idle (seconds)."""
    abandoned = idle_timeout + MARGIN
    return SessionLimits(
        statement_timeout=request_timeout + MARGIN,
        lock_timeout=min(_LOCK_TIMEOUT, request_timeout),
        idle_in_transaction_session_timeout=abandoned,
        idle_session_timeout=abandoned,
        tcp_user_timeout=abandoned,
    )


def application_name(own: str | None = None) -> str:
    """Name this process for pg_stat_activity: where it runs, and a part that is its own; or clean the URL's `own`.

    The server would keep as much: printable ASCII, 63 bytes (manual 19.8).
    """
    place = (
        os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        or os.environ.get("VERCEL_DEPLOYMENT_ID")
        or f"{socket.gethostname()}:{os.getpid()}"
    )
    name = own or f"{place[:50]}/{_instance(os.getpid())}"
    return re.sub(r"[^ -~]", "?", name)[:_NAME_LIMIT]


@lru_cache(maxsize=1)
def _instance(pid: int) -> str:  # noqa: ARG001 - a forked child is an instance of its own
    return secrets.token_hex(3)


def startup_options(settings: Mapping[str, str], own: str | None = None) -> str:
    """Write the `options` of a start-up packet; `own`, from the URL, comes last and wins (manual 34.1.2)."""
    ours = " ".join(f"-c {name}={_escape(value)}" for name, value in settings.items())
    return f"{ours} {own}" if own else ours


def role_settings(limits: SessionLimits, role: str) -> list[str]:
    """Give the SQL that makes the limits defaults of a role, for use behind a transaction pooler.

    Sessions that exist keep what they have.
    """
    # The others are about connections, which behind a pooler are the pooler's.
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    return [f"ALTER ROLE {identifier(role)} SET {name} = '{limits.settings()[name]}ms';" for name in names]


def identifier(name: str) -> str:
    """Quote a name for SQL, so that its case and its special characters are kept (manual 4.1.1)."""
    return '"' + name.replace('"', '""') + '"'


def _escape(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)

"""What a connection of ours asks of its session, in the start-up packet, where it costs no round trip.

The server's own timeouts end what a frozen or vanished instance cannot. They override `ALTER ROLE ... SET`; the URL's
own `options` override them. Behind a transaction pooler they cannot be sent: there they are defaults of the role.
"""

import os
import secrets
import socket
from typing import NamedTuple

_MARGIN = 2.0  # seconds that the server waits longer than we do, so that our own limit comes first
_LOCK_TIMEOUT = 10.0  # seconds; a request that waits longer for a lock keeps others waiting too

# Distinguishes the instances in pg_stat_activity; drawn once a process.
_instance = secrets.token_hex(3)


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
    abandoned = idle_timeout + _MARGIN
    return SessionLimits(
        statement_timeout=request_timeout + _MARGIN,
        lock_timeout=min(_LOCK_TIMEOUT, request_timeout),
        idle_in_transaction_session_timeout=abandoned,
        idle_session_timeout=abandoned,
        tcp_user_timeout=abandoned,
    )


def application_name() -> str:
    """Name this process for pg_stat_activity: where it runs, and a part that is its own. At most 63 bytes."""
    place = (
        os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        or os.environ.get("VERCEL_DEPLOYMENT_ID")
        or f"{socket.gethostname()}:{os.getpid()}"
    )
    return f"{place.encode('ascii', 'replace').decode()[:50]}/{_instance}"


def startup_options(settings: dict[str, str], own: str | None = None) -> str:
    """Write the `options` of a start-up packet; `own`, from the URL, comes last and wins (manual 32.1.2)."""
    ours = " ".join(f"-c {name}={_escape(value)}" for name, value in settings.items())
    return f"{ours} {own}" if own else ours


def role_settings(limits: SessionLimits, role: str) -> list[str]:
    """Give the SQL that makes the limits defaults of a role, for use behind a transaction pooler."""
    quoted = '"' + role.replace('"', '""') + '"'
    # The others are about connections, which behind a pooler are the pooler's.
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    return [f"ALTER ROLE {quoted} SET {name} = '{limits.settings()[name]}ms';" for name in names]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")

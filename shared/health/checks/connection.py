"""The way to the server: does it answer, how fast, encrypted, directly or through a pooler, and what answers."""

import time

from shared.db.providers import provider_of
from shared.db.session import limits, role_settings
from shared.db.sizes import pool_size
from shared.health import thresholds
from shared.health.result import Check, Finding
from shared.health.server import Server
from shared.settings import get_settings

_UPTIME = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS up_seconds"
_TLS = "SELECT ssl, version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
_LIMITS = "SELECT reset_val::int AS milliseconds FROM pg_settings WHERE name = 'statement_timeout'"


def _connection(server: Server) -> Finding:
    begun = time.monotonic()
    up_seconds = server.row(_UPTIME)["up_seconds"]
    milliseconds = round((time.monotonic() - begun) * 1000, 1)
    facts = server.facts
    kind = "a standby" if facts.is_standby else "the primary"
    row = {"database": facts.database, "role": facts.role, "server": kind, "up_seconds": up_seconds}
    verdict = thresholds.ROUND_TRIP.verdict(milliseconds)
    advice = ("Put functions and database into the same region.",) if verdict != "ok" else ()
    summary = f'It answers in {milliseconds:g} ms: {kind}, database "{facts.database}".'
    return Finding(summary, milliseconds, verdict, (row,), advice)


def _pooler(server: Server) -> Finding:
    provider = provider_of(server.url) if server.url is not None else None
    if not _is_pooled(server):
        # A session pooler shows nothing of itself, and RDS Proxy may not: there only the address tells.
        if provider is None or provider.pooler not in ("session", "rds_proxy"):
            return Finding("The server itself answers.", "direct")
        summary = f"By its address, {provider.name} answers."
        if provider.pooler == "session" and get_settings().is_serverless:
            return Finding(summary, "pooler", "warn", advice=(provider.note,))
        return Finding(summary, "pooler")
    if server.row(_LIMITS)["milliseconds"] > 0:
        return Finding("A pooler answers, and the role's own limits are in force.", "pooler")
    settings = get_settings()
    wanted = limits(request_timeout=settings.request_timeout, idle_timeout=pool_size(settings).idle_timeout)
    return Finding(
        "A pooler answers, so our limits cannot travel with the connection, and the role has none of its own.",
        "pooler",
        "warn",
        advice=("Run once, as an administrator: without statement_timeout an abandoned statement runs on.",),
        sql=tuple(role_settings(wanted, server.facts.role)),
    )


def _tls(server: Server) -> Finding:
    seen = server.row(_TLS)
    rows = ({"from": "the pooler" if _is_pooled(server) else "here", "tls": seen["version"], "cipher": seen["cipher"]},)
    if _is_encrypted(server):
        version = seen["version"] if seen["ssl"] and not _is_pooled(server) else "TLS"
        return Finding(f"The connection is encrypted ({version}).", version, rows=rows)
    if server.url is not None and server.url.is_local:
        return Finding("Not encrypted, and on the same machine it need not be.", "none", rows=rows)
    return Finding(
        "The connection is not encrypted: whoever is on the way reads everything.",
        "none",
        "fail" if get_settings().is_production_like else "warn",
        rows,
        ("Add sslmode=require to the connection string, or verify-full, and remove DATABASE_DISABLE_SSL.",),
    )


def _is_pooled(server: Server) -> bool:
    return server.facts.pid != server.connection.backend_pid


def _is_encrypted(server: Server) -> bool:
    """Tell whether our leg of the connection is; the server sees only its own, which may begin at a pooler."""
    raw = server.connection.raw
    if hasattr(raw, "pgconn"):
        return bool(raw.pgconn.ssl_in_use)
    return hasattr(raw._usock, "cipher")  # pg8000's socket, where it is wrapped


def _version(server: Server) -> Finding:
    facts = server.facts
    if facts.major >= thresholds.MIN_MAJOR:
        return Finding(f"PostgreSQL {facts.version}.", facts.version)
    return Finding(
        f"PostgreSQL {facts.version} is older than this project supports.",
        facts.version,
        "fail",
        advice=(f"Upgrade to PostgreSQL {thresholds.MIN_MAJOR} or newer.",),
    )


CHECKS = (
    Check("connection", "Connection", "Time of a round trip; how long the server is up", _connection, "ms",
          thresholds.ROUND_TRIP),
    Check("server_version", "Server version", f"Fails below {thresholds.MIN_MAJOR}", _version),
    Check("tls", "TLS", "Whether the connection is encrypted: where it is not, fails in production, warns elsewhere, "
          "except on the same machine", _tls),
    Check("pooler", "Pooler", "Whether a pooler answers, or the server itself; warns where a pooler keeps our limits "
          "from being in force", _pooler),
)  # fmt: skip

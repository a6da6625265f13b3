"""`db pool`: which limits apply to the connections of a process that runs here, and why.

It opens no connection, unless it is asked to check what the address suggests against what the server does.
"""

import json
from contextlib import closing
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared import db
from shared.db.providers import FORBIDS, Provider, better_for_functions, provider_of, role_of
from shared.db.session import SessionLimits, role_settings
from shared.db.session import limits as session_limits
from shared.db.sizes import PoolSize, pool_size
from shared.db.url import DatabaseURL
from shared.settings import Settings, get_settings

_TLS = {
    "disable": "never encrypted",
    "allow": "encrypted only where the server insists",
    "prefer": "encrypted where the server can, the certificate not checked",
    "require": "encrypted, the certificate not checked",
    "verify-ca": "encrypted, the certificate's authority checked",
    "verify-full": "encrypted, the certificate's authority and host name checked",
}
_SHARE = 0.7  # of max_connections: the rest is for migrations, other programs and people
_SLOTS = 100  # PostgreSQL's own max_connections (manual 19.3)


class Facts(NamedTuple):
    """What is known of the connections without opening one."""

    settings: Settings
    url: DatabaseURL
    direct: DatabaseURL | None
    replica: DatabaseURL | None
    provider: Provider
    size: PoolSize
    limits: SessionLimits

    @property
    def role_settings(self) -> list[str]:
        """Give the SQL that a role needs where the start-up packet cannot carry the limits."""
        return [] if self.provider.pooler == "none" else role_settings(self.limits, role_of(self.url))

    @property
    def advice(self) -> list[str]:
        """Say what would be better."""
        found = []
        better = better_for_functions(self.url)
        if better is not None:
            found.append(f"For functions use the transaction pooler, on port {better.port}: {better.masked()}")
        if self.direct is None:
            found.append("Set DIRECT_URL to the server itself: migrations, locks and dumps cannot go through a pooler.")
        return found


class Seen(NamedTuple):
    """What a connection showed."""

    pooled: bool  # somebody else than the server answered it
    limits: dict[str, str]  # in force, as SHOW writes them


def run(
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Connect, and tell what is really so.")] = False,
) -> None:
    """Show which limits apply to connections here, and why. APP_ENV=production VERCEL=1 shows a function's."""
    facts = _facts()
    seen = _look() if check else None
    if as_json:
        found = _as_object(facts) | ({"seen": seen._asdict()} if seen else {})
        print(json.dumps(found, indent=2, ensure_ascii=False))  # noqa: T201
        return
    console = Console(soft_wrap=True)
    table = Table()
    for heading in ("What", "Value", "Why"):
        table.add_column(heading, overflow="fold")
    for row in _rows(facts):
        table.add_row(*map(Text, row))
    if seen is not None:
        who = "a pooler answers" if seen.pooled else "the server itself answers"
        table.add_row("Seen", who, ", ".join(f"{name} = {value}" for name, value in seen.limits.items()))
    console.print(table)
    if facts.role_settings:
        console.print("\nThe pooler takes no limits in the start-up packet. Run once, as an administrator:")
        for statement in facts.role_settings:
            console.print(f"  {statement}", markup=False, highlight=False)
    for sentence in facts.advice:
        console.print(f"\n{sentence}", markup=False, highlight=False)


def _facts() -> Facts:
    settings = get_settings()
    url, size = settings.database_url, pool_size(settings)
    return Facts(
        settings=settings,
        url=url,
        direct=settings.direct_database_url,
        replica=settings.replica_database_url,
        provider=provider_of(url),
        size=size,
        limits=session_limits(request_timeout=settings.request_timeout, idle_timeout=size.idle_timeout),
    )


def _look() -> Seen:
    """Compare whom the connection was answered by with who runs the statement, and read the limits in force."""
    names = list(SessionLimits._fields)
    with closing(db.open_connection()) as connection:
        pid = connection.fetch("SELECT pg_backend_pid() AS pid")[0]["pid"]
        sql = "SELECT name, current_setting(name) AS value FROM unnest(%(names)s::text[]) AS name"
        rows = connection.fetch(sql, {"names": names})
        return Seen(pid != connection.backend_pid, {row["name"]: row["value"] for row in rows})


def _rows(facts: Facts) -> list[tuple[str, str, str]]:
    size, provider = facts.size, facts.provider
    sslmode = facts.url.sslmode or "prefer"
    wait = "until the deadline" if size.timeout is None else f"{size.timeout:g} s"
    by = {name: size.overridden.get(name, "the default there") for name in size._fields}
    limits = facts.limits._asdict()
    if facts.role_settings:  # the others are the pooler's
        limits = {name: seconds for name, seconds in limits.items() if any(name in sql for sql in facts.role_settings)}
    set_by = "only by the role, see below" if facts.role_settings else "sent in the start-up packet"
    return [
        ("Environment", facts.settings.environment, size.rule),
        ("Provider", provider.name, provider.note),
        ("Pooler", provider.pooler, f"forbids {FORBIDS[provider.pooler]}"),
        ("Direct URL", facts.direct.masked() if facts.direct else "not known", "for migrations, locks and dumps"),
        *_replica_rows(facts),
        ("Driver", facts.settings.database_driver, "DATABASE_DRIVER"),
        ("TLS", sslmode, _TLS[sslmode]),
        ("Connections at most", str(size.max_size), by["max_size"]),
        ("Idle for at most", f"{size.idle_timeout:g} s", by["idle_timeout"]),
        ("Idle beyond the first", f"{size.surplus_timeout:g} s", "so that other processes find room"),
        ("Wait for one", wait, by["timeout"]),
        *((name, f"{seconds:g} s", set_by) for name, seconds in limits.items()),
        ("Budget", f"instances x {size.max_size}", _budget(size)),
    ]


def _replica_rows(facts: Facts) -> list[tuple[str, str, str]]:
    if facts.replica is None:
        return []
    most = pool_size(facts.settings, facts.replica).max_size
    why = f"for reads of shared.db.replica: a pool beside the other, of {most} more; at the primary while it falls back"
    return [("Replica", facts.replica.masked(), why)]


def _budget(size: PoolSize) -> str:
    instances = int(_SLOTS * _SHARE / size.max_size)
    return f"{_SLOTS} slots, {_SHARE:.0%} of them ours, are enough for {instances} instances at their most"


def _as_object(facts: Facts) -> dict[str, object]:
    size, provider = facts.size, facts.provider
    return {
        "environment": facts.settings.environment,
        "serverless": facts.settings.is_serverless,
        "url": facts.url.masked(),
        "direct_url": facts.direct.masked() if facts.direct else None,
        "replica_url": facts.replica.masked() if facts.replica else None,
        "provider": provider.name,
        "pooler": provider.pooler,
        "note": provider.note,
        "driver": facts.settings.database_driver,
        "sslmode": facts.url.sslmode,
        "pool": {
            name: {"value": getattr(size, name), "why": size.why(name)}
            for name in ("max_size", "idle_timeout", "surplus_timeout", "timeout")
        },
        "session_limits": facts.limits._asdict(),
        "session_limits_sent": provider.pooler == "none",
        "role_settings": facts.role_settings,
        "budget": {"formula": f"instances x {size.max_size}", "meaning": _budget(size)},
        "advice": facts.advice,
    }

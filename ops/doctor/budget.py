"""Whether the server has room for every instance's pool: the numbers of vercel.json, serverless.yml and the server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ops.doctor.step import Step
from shared.db.drivers import Connection
from shared.db.sizes import PoolSize, pool_size
from shared.settings import Settings

SHARE = 0.7  # of the slots: the rest is for migrations, other programs and people
ROOT = Path(__file__).parent.parent.parent


class Slots(NamedTuple):
    """What the server offers to ordinary roles, and what is taken."""

    offered: int
    taken: int


def slots(connection: Connection) -> Slots:
    """Read how many connections ordinary roles may hold, and how many there are (manual 19.3)."""
    row = connection.fetch(
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - current_setting('reserved_connections')::int AS offered,"
        " (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS taken"
    )[0]
    return Slots(row["offered"], row["taken"])


def lambda_instances(root: Path = ROOT) -> int | None:
    """Add up the reserved concurrency of the endpoints in serverless.yml; None where one has none, so no limit."""
    service: dict[str, Any] = yaml.safe_load((root / "serverless.yml").read_text("utf-8"))
    default = service.get("params", {}).get("default", {}).get("reservedConcurrency")
    reserved = [
        default if "param:reservedConcurrency" in str(number := function.get("reservedConcurrency")) else number
        for function in service.get("functions", {}).values()
        if function.get("events")
    ]
    return sum(reserved) if reserved and all(isinstance(number, int) for number in reserved) else None


def vercel_functions(root: Path = ROOT) -> int:
    """Count the functions that vercel.json makes; each has instances of its own."""
    functions: dict[str, Any] = json.loads((root / "vercel.json").read_text("utf-8")).get("functions", {})
    return max(1, len(functions))


def step(name: str, connection: Connection, settings: Settings, *, pooled: bool, root: Path = ROOT) -> Step:
    """Compare instances x pool with the server's slots."""
    size = pool_size(replace(settings, is_serverless=True))  # before a deployment this runs elsewhere
    found = slots(connection)
    room = int(found.offered * SHARE)
    said = (
        f"{found.taken} of {found.offered} connections taken; a function's pool has {size.max_size}, "
        f"so room for {room // size.max_size} instances at their most ({SHARE:.0%} of the slots)"
    )
    if pooled:
        return Step(name, "ok", f"{said}; the pooler shares them among more")
    instances = lambda_instances(root)
    if instances is not None and instances * size.max_size > room:
        allowed = f"serverless.yml allows {instances} instances, {instances * size.max_size} connections"
        return Step(name, "fail", f"{said}; {allowed}", _advice(size, room // instances))
    if found.taken > room:
        return Step(name, "fail", said, _advice(size, 1))
    if room < size.max_size * vercel_functions(root) * 2:
        return Step(name, "warn", said, _advice(size, max(1, room // 4)))
    return Step(name, "ok", said)


def _advice(size: PoolSize, better: int) -> tuple[str, ...]:
    return (
        "Use the provider's transaction pooler: its address in DATABASE_URL, the server's in DIRECT_URL.",
        f"Or DATABASE_POOL_MAX={max(1, min(better, size.max_size))}, and a lower reserved concurrency.",
        "Or a higher max_connections, which costs the server memory for each.",
    )

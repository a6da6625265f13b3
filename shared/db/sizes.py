"""How large a pool this process gets, and how long it keeps idle connections: both guides' numbers.

A serverless instance keeps few connections for a short time, since every instance has its own; a long-lived server
sizes by its processors, since more connections than that only queue inside PostgreSQL.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # settings reads this package's url module, so at run time the import would run in a circle
    from shared.db.url import DatabaseURL
    from shared.settings import Settings


class PoolSize(NamedTuple):
    """What a pool may hold; times in seconds, those of idle connections by the wall clock."""

    max_size: int
    idle_timeout: float
    surplus_timeout: float  # for connections beyond the first
    rule: str  # where this runs, and so why these are the defaults
    # None: as long as the deadline allows. Long enough for a database at rest to wake up.
    timeout: float | None = 15.0
    overridden: Mapping[str, str] = {}  # by what, for each that is not the rule's

    def why(self, name: str) -> str:
        """Say where one of the numbers comes from."""
        return self.overridden.get(name, self.rule)


def pool_size(settings: "Settings", url: "DatabaseURL | None" = None) -> PoolSize:
    """Choose by where this process runs and what its environment is; `url` is DATABASE_URL unless it is given.

    A DATABASE_POOL_* variable beats the URL's connection_limit and pool_timeout, and these the rule.
    """
    size = _by_rule(settings)
    hints = (url or settings.database_url).hints
    given: tuple[tuple[str, str, float | None], ...] = (
        ("max_size", "connection_limit in the URL", _number(hints, "connection_limit")),
        ("max_size", "DATABASE_POOL_MAX", settings.database_pool_max),
        ("idle_timeout", "DATABASE_POOL_IDLE_TIMEOUT", settings.database_pool_idle_timeout),
        ("timeout", "pool_timeout in the URL", _number(hints, "pool_timeout")),
        ("timeout", "DATABASE_POOL_TIMEOUT", settings.database_pool_timeout),
    )
    values = {name: value for name, _, value in given if value is not None}
    overridden = {name: by for name, by, value in given if value is not None}
    idle_timeout = values.get("idle_timeout", size.idle_timeout)
    return size._replace(
        max_size=int(values.get("max_size", size.max_size)),
        idle_timeout=idle_timeout,
        surplus_timeout=min(size.surplus_timeout, idle_timeout),
        timeout=values.get("timeout", size.timeout) or None,
        overridden=overridden,
    )


def _number(hints: Mapping[str, str], name: str) -> float | None:
    return float(hints[name]) if name in hints else None


def _by_rule(settings: "Settings") -> PoolSize:
    if settings.is_serverless:
        # A burst's connections are given back at once: the other instances need the room.
        return PoolSize(10, 20, 1, "a serverless instance, a pool in each")
    if settings.environment == "development":
        return PoolSize(10, 30, 30, "development")
    if settings.environment == "test":
        return PoolSize(5, 10, 10, "test")
    return server_size(available_cpus())


def server_size(cpus: int) -> PoolSize:
    """Give the size for a long-lived server with so many processors."""
    return PoolSize(min(20, cpus * 2 + 1), 60, 60, f"a long-lived server with {cpus} CPUs: CPU x 2 + 1, at most 20")


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the processors that this process may use: its affinity, and its container's quota rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """Read the CPU quota of cgroup v2 (cpu.max) or v1 (cpu.cfs_*), None where there is none."""
    try:
        if (cgroup / "cpu.max").exists():
            limit, period = (cgroup / "cpu.max").read_text().split()
        else:
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return None if limit == "max" or int(limit) <= 0 else int(limit) / int(period)
    except (OSError, ValueError):
        return None

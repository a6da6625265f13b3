"""How large a pool this process gets, and how long it keeps idle connections: both guides' numbers.

A serverless instance keeps few connections for a short time, since every instance has its own; a long-lived server
sizes by its processors, since more connections than that only queue inside PostgreSQL.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # settings reads this package's url module, so at run time the import would run in a circle
    from shared.settings import Settings


class PoolSize(NamedTuple):
    """What a pool may hold; `why` names the rule."""

    max_size: int  # connections
    idle_timeout: float  # seconds by the wall clock
    why: str
    timeout: float | None = 10.0  # seconds to wait for a connection; None: as long as the deadline allows


def pool_size(settings: "Settings") -> PoolSize:
    """Choose by where this process runs and what its environment is.

    A DATABASE_POOL_* variable beats the URL's connection_limit and pool_timeout, and these the rule.
    """
    size = _by_rule(settings)
    hints = settings.database_url.hints
    if "connection_limit" in hints:
        size = size._replace(max_size=int(hints["connection_limit"]), why="connection_limit in the URL")
    if settings.database_pool_max is not None:
        size = size._replace(max_size=settings.database_pool_max, why="DATABASE_POOL_MAX")
    if settings.database_pool_idle_timeout is not None:
        size = size._replace(idle_timeout=settings.database_pool_idle_timeout)
    timeout = settings.database_pool_timeout
    if timeout is None:
        timeout = float(hints.get("pool_timeout", size.timeout or 0))
    return size._replace(timeout=timeout or None)


def _by_rule(settings: "Settings") -> PoolSize:
    if settings.is_serverless:
        return PoolSize(10, 20, "a serverless instance, one pool each")
    if settings.environment == "development":
        return PoolSize(10, 30, "development")
    if settings.environment == "test":
        return PoolSize(5, 10, "test")
    processors = os.cpu_count() or 1
    return PoolSize(
        min(20, processors * 2 + 1), 60, f"a long-lived server with {processors} CPUs: CPU x 2 + 1, at most 20"
    )

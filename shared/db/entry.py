"""What the pool keeps of a connection, and of a caller that waits for one."""

import threading

from shared.db.drivers import Connection
from shared.errors import DatabaseUnavailable


class Entry:
    """One connection and what the pool knows of it; instants are seconds of the wall clock."""

    __slots__ = ("connection", "idle_since", "idle_timeout", "is_first", "lifetime", "opened", "suspect")

    def __init__(
        self, connection: Connection, now: float, *, is_first: bool, idle_timeout: float, lifetime: float
    ) -> None:
        self.connection = connection
        self.is_first = is_first
        self.opened = now
        self.lifetime = lifetime
        self.idle_since = now
        self.idle_timeout = idle_timeout
        self.suspect = False

    def is_old(self, now: float) -> bool:
        """Tell whether its lifetime is over."""
        return is_over(self.opened, now, self.lifetime)

    def is_stale(self, now: float) -> bool:
        """Tell whether it was idle for too long."""
        return is_over(self.idle_since, now, self.idle_timeout)


class Waiter:
    """A caller in the queue.

    Served with a connection, the right to open one (entry None), a failure, or the news that an outage began (`again`).
    """

    __slots__ = ("again", "entry", "failure", "served")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.failure: DatabaseUnavailable | None = None
        self.again = False
        self.served = threading.Event()


def is_over(begin: float, now: float, limit: float) -> bool:
    """Tell whether `limit` seconds have passed. A clock that was set back leaves that unknown: then they have."""
    return not 0 <= now - begin < limit

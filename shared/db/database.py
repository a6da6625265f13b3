"""One database as this process reaches it: what opens its connections, and the pool that lends them.

`shared.db` has one, where DATABASE_URL leads; `shared.db.replica` has a second one beside it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared import settings
from shared.db.connector import Connector
from shared.db.pool import Pool
from shared.db.providers import better_for_functions
from shared.db.session import limits as session_limits
from shared.db.sizes import pool_size
from shared.db.url import DatabaseURL

if TYPE_CHECKING:  # settings reads this package's url module, so it may not be complete yet
    from shared.settings import Settings

log = logging.getLogger(__name__)

_ROTATION = 5.0  # seconds for which a password may be new on the server and not yet where we read it


class Database:
    """Made once for each variable; nothing is read or opened before it is needed.

    `url` finds the address in the settings. `max_lifetime` is of a connection, in seconds. With `read_only` each
    session refuses to write, where the server itself answers.
    """

    def __init__(
        self,
        variable: str,
        url: "Callable[[Settings], DatabaseURL]",
        *,
        max_lifetime: float = 1800.0,
        read_only: bool = False,
    ) -> None:
        self.variable = variable
        self.is_lent = False  # by `use`
        self._url = url
        self._max_lifetime = max_lifetime
        self._read_only = read_only
        self._pool: Pool | None = None
        self._connector: Connector | None = None
        self._lock = threading.RLock()
        _all.append(self)

    @property
    def has_pool(self) -> bool:
        """Tell whether its pool was made, and not closed since."""
        return self._pool is not None

    def pool(self) -> Pool:
        """Give the pool. Raises ConfigurationError where a variable is missing or wrong."""
        pool = self._pool
        if pool is not None:
            return pool
        with self._lock:
            if self._pool is None:
                current = settings.get_settings()
                size = pool_size(current, self._url(current))
                connector = self.connector()
                self._pool = Pool(
                    connector.open,
                    max_size=size.max_size,
                    idle_timeout=size.idle_timeout,
                    surplus_timeout=size.surplus_timeout,
                    timeout=size.timeout,
                    max_lifetime=self._max_lifetime,
                    has_pooler=lambda: connector.pooler != "none",
                    track=current.environment in ("development", "test"),
                )
            return self._pool

    def connector(self) -> Connector:
        """Give what opens connections, the pool's and those beside it. Raises ConfigurationError."""
        with self._lock:
            if self._connector is None:
                current = settings.get_settings()
                url = self._url(current)
                better = better_for_functions(url)
                if current.is_serverless and better is not None:
                    log.warning(
                        "%s leads to a session pooler, which has no room for many instances: use port %d",
                        self.variable,
                        better.port,
                    )
                self._connector = Connector(
                    url,
                    driver=current.database_driver,
                    limits=session_limits(
                        request_timeout=current.request_timeout, idle_timeout=pool_size(current, url).idle_timeout
                    ),
                    refresh=self._read_url_again,
                    patience=_ROTATION if current.password_store is not None else 0.0,
                    current=self._read_url if current.database_iam_auth else None,
                    read_only=self._read_only,
                )
            return self._connector

    def _read_url(self) -> DatabaseURL:
        return self._url(settings.get_settings())

    def _read_url_again(self) -> DatabaseURL:
        current = settings.get_settings()
        if current.password_store is None and not current.database_iam_auth:
            settings.reset_settings()
        else:
            current.refreshed_database_url()
        return self._read_url()

    def use(self, pool: Pool | None) -> None:
        """Put another pool in the place of its own, until it is called with None; `close` leaves that one alone."""
        with self._lock:
            self._pool, self.is_lent = pool, pool is not None

    def close(self, grace: float) -> None:
        """Close its connections, within `grace` seconds; the next statement makes a new pool."""
        with self._lock:
            if self.is_lent:
                return
            pool, self._pool, self._connector = self._pool, None, None
        if pool is not None:
            pool.close(grace)

    def drain(self) -> None:
        """Close idle connections now and those in use as they come back."""
        with self._lock:
            pool = None if self.is_lent else self._pool
        if pool is not None:
            pool.drain()

    def after_fork(self) -> None:
        """Take a new lock in a forked child; the pool forgets the parent's connections by itself."""
        self._lock = threading.RLock()  # a thread that the child lacks may hold the old one
        if self._connector is not None:
            self._connector.after_fork()


def close_all(grace: float) -> None:
    """Close the connections of each, within `grace` seconds for all of them."""
    until = time.monotonic() + grace
    for database in _all:
        database.close(max(0.0, until - time.monotonic()))


def drain_all() -> None:
    """Drain each."""
    for database in _all:
        database.drain()


_all: list[Database] = []


def _after_fork() -> None:
    for database in _all:
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

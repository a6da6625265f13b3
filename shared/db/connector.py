"""How a connection is made: what to send to this address, and what the answers teach.

One object a process. It knows by the URL whether a pooler stands there, and learns from the first connection whether
the start-up options arrived and which version answers: without a round trip, because the server reports both.
"""

import logging
import threading
from collections.abc import Callable

from shared.db import session
from shared.db.drivers import Connection, connect
from shared.db.providers import Pooler, provider_of
from shared.db.session import SessionLimits
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, DatabaseUnavailable, InvalidPassword, UnsupportedStartupParameter

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds, where the URL's connect_timeout does not say
_DIRECT_TLS_SINCE = 17  # PostgreSQL 17 takes TLS without asking for it first


class Connector:
    """Open connections to one database.

    `refresh` gives the URL anew after the server refused the password, in case it was rotated.
    """

    def __init__(
        self, url: DatabaseURL, *, driver: str, limits: SessionLimits, refresh: Callable[[], DatabaseURL]
    ) -> None:
        self.url = url
        self.driver = driver
        self.limits = limits
        self.pooler: Pooler = provider_of(url).pooler
        self._refresh = refresh
        self._name = session.application_name()
        self._direct_tls = False
        self._lock = threading.Lock()

    def open(self) -> Connection:
        """Open a connection within its time limit and the deadline.

        Raises DatabaseUnavailable, DeadlineExceeded, or ConfigurationError where the URL asks for what cannot be.
        """
        url = self.url
        try:
            return self._open(url)
        except InvalidPassword:
            fresh = self._refreshed(url)
            if fresh is None:
                raise
            return self._open(fresh)

    def _refreshed(self, used: DatabaseURL) -> DatabaseURL | None:
        with self._lock:
            if self.url is used:
                self.url = self._refresh()
            return None if self.url == used else self.url

    def _open(self, url: DatabaseURL) -> Connection:
        timeout = float(url.params.get("connect_timeout", 0)) or CONNECT_TIMEOUT
        pooler = self.pooler
        try:
            connection = connect(self._equipped(url), self.driver, connect_timeout=timeout)
        except UnsupportedStartupParameter:
            if pooler != "none":
                raise
            log.warning("a pooler answers at %s: no start-up options from now on", url.host)
            self.pooler = "transaction"
            return self._open(url)
        except DatabaseUnavailable:
            if not self._direct_tls:
                raise
            self._direct_tls = False  # something between us and the server does not take it after all
            return self._open(url)
        if pooler == "none":
            self._learn(url, connection)
        return connection

    def _equipped(self, url: DatabaseURL) -> DatabaseURL:
        """Add what this address can take to the URL's own parameters."""
        name = url.params.get("application_name", self._name)
        schema = url.hints.get("schema")
        if self.pooler != "none":
            if schema not in (None, "public"):
                raise ConfigurationError(
                    f"schema={schema} in the URL cannot be set through a pooler.",
                    solutions=[f"ALTER ROLE ... SET search_path = {schema}, and remove it from the URL."],
                )
            return url.with_params(application_name=name)
        # The name goes with the options: the server reports it back, and so tells that they arrived.
        settings = {"application_name": name, **self.limits.settings()}
        if schema is not None:
            settings["search_path"] = schema
        return url.with_params(
            application_name=None,
            options=session.startup_options(settings, url.params.get("options")),
            sslnegotiation="direct" if self._direct_tls else url.params.get("sslnegotiation"),
        )

    def _learn(self, url: DatabaseURL, connection: Connection) -> None:
        if connection.parameter("application_name") != url.params.get("application_name", self._name):
            log.warning("a proxy at %s drops start-up options: the session limits are not in force", url.host)
            self.pooler = "transaction"
            return
        encrypted = url.sslmode in ("require", "verify-ca", "verify-full") and not url.hosts[0].is_socket
        version = connection.parameter("server_version") or "0"
        self._direct_tls = encrypted and self.driver == "psycopg" and int(version.split(".")[0]) >= _DIRECT_TLS_SINCE

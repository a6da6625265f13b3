"""How a connection is made: what to send to this address, and what the answers teach.

One object a process. It knows by the URL whether a pooler stands there, and learns from the first connection whether
the start-up options arrived and which version answers: without a round trip, because the server reports both.
"""

import logging
import re
import threading
import time
from collections.abc import Callable

from shared import deadline
from shared.db import session
from shared.db.drivers import Connection, connect
from shared.db.providers import Pooler, provider_of, role_of
from shared.db.session import SessionLimits
from shared.db.url import DatabaseURL
from shared.errors import (
    CannotConnectNow,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidPassword,
    TooManyConnections,
    UnsupportedStartupParameter,
)

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds, where the URL's connect_timeout does not say
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between attempts while a rotation is under way
# How a server refuses who logs in, where it does not say that the password is wrong: RDS an IAM token, and any server
# a role that was dropped or may not log in any more.
_REFUSED = re.compile("PAM authentication failed|is not permitted to log in|role .* does not exist")
_DIRECT_TLS_SINCE = 17  # PostgreSQL 17 takes TLS without asking for it first


class Connector:
    """Open connections to one database.

    `refresh` gives the URL anew after the server refused the password, in case it was rotated; for up to `patience`
    seconds, where the server had let this process in before. `current`, where it is given, gives the URL before each
    attempt: for a password that is over by itself. With `read_only` the sessions refuse to write.
    """

    def __init__(
        self,
        url: DatabaseURL,
        *,
        driver: str,
        limits: SessionLimits,
        refresh: Callable[[], DatabaseURL],
        patience: float = 0.0,
        current: Callable[[], DatabaseURL] | None = None,
        read_only: bool = False,
    ) -> None:
        self.url = url
        self.driver = driver
        self.limits = limits
        self.pooler: Pooler = provider_of(url).pooler
        self._refresh = refresh
        self._patience = patience
        self._current = current
        self._read_only = read_only
        self._was_in = False
        self._direct_tls = False
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Take a new lock in a forked child: a thread that the child lacks may hold the old one."""
        self._lock = threading.Lock()

    def open(self, idle_timeout: float | None = None) -> Connection:
        """Open a connection within its time limit and the deadline.

        `idle_timeout` says for how many seconds it will be kept idle, where that is less than the limits assume.
        Raises DatabaseUnavailable, DeadlineExceeded, or ConfigurationError where the URL asks for what cannot be.
        """
        if self._current is not None:
            self.url = self._current()
        url, limits = self.url, self.limits
        if idle_timeout is not None:
            limits = limits._replace(
                idle_session_timeout=min(limits.idle_session_timeout, idle_timeout + session.MARGIN)
            )
        until = time.monotonic() + (self._patience if self._was_in else 0.0)
        pause, tried = _FIRST_PAUSE, 0
        while True:
            try:
                connection = self._open(url, limits)
            except DatabaseUnavailable as error:
                if not is_refusal(error):
                    raise
                refused = error
            else:
                self._was_in = True
                return connection
            tried += 1
            # Outside the handler, here and below: what is raised now is not to be explained by what was mended.
            fresh = self._refreshed(url) if tried == 1 or time.monotonic() < until else None
            if fresh is not None:
                url = fresh
            elif time.monotonic() + pause >= until or not _has_time(pause):
                raise refused
            else:
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _refreshed(self, used: DatabaseURL) -> DatabaseURL | None:
        """Give another URL than the one that was used, None where there is none now."""
        with self._lock:
            if self.url == used:
                try:
                    self.url = self._refresh()
                except ConfigurationError as error:  # the server's refusal is what to report
                    log.warning("the password was refused, and cannot be read anew: %s", error.message)
            return None if self.url == used else self.url

    def _open(self, url: DatabaseURL, limits: SessionLimits) -> Connection:
        timeout = float(url.params.get("connect_timeout", 0)) or CONNECT_TIMEOUT
        pooler, direct_tls = self.pooler, self._direct_tls
        name = session.application_name(url.params.get("application_name"))
        connection: Connection | None = None
        try:
            connection = connect(self._equipped(url, limits, name), self.driver, connect_timeout=timeout)
        except UnsupportedStartupParameter:
            if pooler != "none":
                raise
            log.warning("a pooler answers at %s: no start-up options from now on", url.host)
            self.pooler = "transaction"
        except (TooManyConnections, CannotConnectNow, InvalidPassword):
            raise  # the server took our TLS and said no
        except DatabaseUnavailable:
            if not direct_tls:
                raise
            self._direct_tls = False  # something between us and the server does not take it after all
        if connection is None:
            return self._open(url, limits)
        if pooler == "none":
            self._learn(url, connection, name)
            if self.pooler != "none" and url.hints.get("schema"):
                connection.close()  # its search_path was dropped too
                return self._open(url, limits)
        return connection

    def _equipped(self, url: DatabaseURL, limits: SessionLimits, name: str) -> DatabaseURL:
        """Add what this address can take to the URL's own parameters."""
        url = url.with_params(**{**session.KEEPALIVES, **url.params})
        schema = url.hints.get("schema") or None
        if self.pooler != "none":
            if schema not in (None, "public"):
                raise ConfigurationError(
                    f"schema={schema} in the URL cannot be set through a pooler.",
                    solutions=[
                        f"ALTER ROLE {session.identifier(role_of(url))} SET search_path = {session.identifier(schema)};"
                        " and remove it from the URL."
                    ],
                )
            return url.with_params(application_name=name)
        # The name goes with the options: the server reports it back, and so tells that they arrived.
        settings = {"application_name": name, **limits.settings()}
        if self._read_only:
            settings["default_transaction_read_only"] = "on"
        if schema is not None:
            settings["search_path"] = session.identifier(schema)
        return url.with_params(
            application_name=None,
            options=session.startup_options(settings, url.params.get("options")),
            sslnegotiation="direct" if self._direct_tls else url.params.get("sslnegotiation"),
        )

    def _learn(self, url: DatabaseURL, connection: Connection, name: str) -> None:
        named_in_options = "application_name" in url.params.get("options", "")
        if connection.parameter("application_name") != name and not named_in_options:
            log.warning("a proxy at %s drops start-up options: the session limits are not in force", url.host)
            self.pooler = "transaction"
            return
        encrypted = url.sslmode in ("require", "verify-ca", "verify-full") and not url.hosts[0].is_socket
        version = re.match(r"\d+", connection.parameter("server_version") or "")  # also of 19devel and 19beta1
        known = version is not None and int(version[0]) >= _DIRECT_TLS_SINCE
        self._direct_tls = encrypted and self.driver == "psycopg" and known


def is_refusal(error: DatabaseUnavailable) -> bool:
    """Tell whether the server refused who logs in, so that another password may do."""
    return isinstance(error, InvalidPassword) or _REFUSED.search(error.message) is not None


def _has_time(seconds: float) -> bool:
    left = deadline.remaining()
    return left is None or left > seconds

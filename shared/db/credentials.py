"""Where the database's password comes from when DATABASE_URL does not hold it.

It is fetched when first asked for, kept, and fetched anew after the server refused it: a rotation needs no deploy. One
thread asks AWS, and all who wait share its answer, each no longer than its own deadline allows.
"""

import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from shared import deadline
from shared.db import aws
from shared.db.url import DatabaseURL, Host
from shared.errors import ConfigurationError, Error

log = logging.getLogger(__name__)

SECRET, PARAMETER, IAM = "DATABASE_URL_SECRET_ARN", "DATABASE_URL_SSM_PARAMETER", "DATABASE_IAM_AUTH"
TOKEN_LIFE = 600.0  # seconds; RDS takes a token for 900, and clocks differ
_LONGEST = 15.0  # seconds that a caller without a deadline waits for AWS
_AGAIN = 1.0  # seconds for which a failure is repeated to others: each would wait as long


class Store(Protocol):
    """What keeps a secret: what is in force, and what a rotation under way is about to put in force."""

    def current(self) -> str: ...

    def pending(self) -> str | None: ...


class Stored:
    """A connection string that a store keeps; `made` turns the store's text into it."""

    def __init__(self, store: Store, made: Callable[[str], DatabaseURL]) -> None:
        self.store = store
        self._made = made
        self._given: DatabaseURL | None = None
        self.passwords: set[str] = set()  # that were fetched so far
        self._begin()
        _sources.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._call: _Call | None = None
        self._failed: Error | None = None
        self._failed_at = 0.0  # monotonic

    def url(self) -> DatabaseURL:
        """Give what was fetched last, fetching it first where nothing was. Raises ConfigurationError."""
        return self._given or self._shared(self._first)

    def refreshed(self) -> DatabaseURL:
        """Give another one than was given last, since the server refused that; the same where there is no other."""
        return self._shared(self._next)

    def _first(self) -> DatabaseURL:
        if self._failed is not None and time.monotonic() - self._failed_at < _AGAIN:
            raise self._failed
        return self._made(self.store.current())

    def _next(self) -> DatabaseURL:
        current = self._made(self.store.current())
        if current != self._given:
            return current
        # The server's password changes a moment before the secret's stage does, and fails where that was not done.
        pending = self.store.pending()
        return current if pending is None else self._made(pending)

    def _shared(self, work: Callable[[], DatabaseURL]) -> DatabaseURL:
        with self._lock:
            if self._call is None:
                self._call = _Call(lambda: self._done(work))
            call = self._call
        return call.result()

    def _done(self, work: Callable[[], DatabaseURL]) -> DatabaseURL:
        try:
            found = work()
        except Error as error:
            if error is not self._failed:
                self._failed, self._failed_at = error, time.monotonic()
            raise
        else:
            self._given, self._failed = found, None
            self.passwords.add(found.password or "")
            return found
        finally:
            with self._lock:
                self._call = None


class _Call:
    """One question to AWS in a thread of its own, so that whoever waits for the answer may stop waiting."""

    def __init__(self, work: Callable[[], DatabaseURL]) -> None:
        self._work = work
        self._found: DatabaseURL | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="credentials", daemon=True)
        self._over = threading.Event()
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as error:
            self._error = error
        self._over.set()

    def result(self) -> DatabaseURL:
        # Who logs while asking AWS must not wait for the answer: the log wants the password, to mask it.
        if threading.current_thread() is self._thread or not self._over.wait(deadline.bound(_LONGEST)):
            raise ConfigurationError(
                "AWS did not give the database's password in time.",
                solutions=["In a VPC without a NAT gateway, add an interface endpoint for Secrets Manager or SSM."],
            )
        if isinstance(self._error, Error):  # a copy: raised in two threads, one would mix their tracebacks
            raise type(self._error)(self._error.message, solutions=self._error.solutions)
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found


class Tokens:
    """RDS's IAM tokens, in the place of a password; each is kept for less than its 15 minutes."""

    def __init__(self, sign: Callable[[str, int, str], str] | None = None) -> None:
        self._sign = sign or aws.token
        self._kept: dict[tuple[str, int, str], tuple[str, float]] = {}

    def url(self, url: DatabaseURL) -> DatabaseURL:
        """Put a token that is still good into a URL. Raises ConfigurationError."""
        key = (url.host, url.port, url.user)
        # The wall clock: a frozen process's monotonic clock may stand still.
        token, made = self._kept.get(key, ("", 0.0))
        if not 0 <= time.time() - made < TOKEN_LIFE:
            made = time.time()
            token = self._sign(*key)
            self._kept[key] = (token, made)
        return replace(url, password=token)

    @property
    def passwords(self) -> set[str]:
        """Give the tokens that are kept."""
        return {token for token, _ in self._kept.values()}

    def forget(self) -> None:
        """Sign anew next time: the AWS credentials that signed may be over."""
        self._kept.clear()


def read(text: str, base: DatabaseURL | None, source: str) -> DatabaseURL:
    """Make the connection string of what a secret holds; `base` has what it lacks, `source` is its name for messages.

    It is a connection string, JSON with one under `DATABASE_URL`, or JSON as RDS and its rotation write it: `username`,
    `password`, and perhaps `host`, `port`, `dbname`. Raises ConfigurationError, which never repeats the text.
    """
    if not text.lstrip().startswith("{"):
        return DatabaseURL.parse(text, variable=source)
    try:
        fields = json.loads(text)
    except ValueError:
        # Not chained: the error holds the text.
        raise _malformed(source, "begins with { and is not JSON") from None
    if "DATABASE_URL" in fields:
        return DatabaseURL.parse(str(fields["DATABASE_URL"]), variable=source)
    if not isinstance(fields.get("username"), str) or not isinstance(fields.get("password"), str):
        raise _malformed(source, "holds neither DATABASE_URL nor username and password")
    if not str(fields.get("engine", "postgres")).startswith(("postgres", "aurora-postgres")):
        raise _malformed(source, "is of another kind of database")
    host, port, name = (str(fields.get(key) or "") for key in ("host", "port", "dbname"))
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise _malformed(source, "has a port that is not a number from 1 to 65535")
    if base is None and not host:
        raise ConfigurationError(
            f"{source} holds no host, and DATABASE_URL is not set.",
            solutions=["Set DATABASE_URL=postgresql://HOST:5432/DATABASE; user and password come from the secret."],
        )
    base = base or DatabaseURL(hosts=(Host(host),))
    hosts = (Host(host, int(port or base.port)),) if host else base.hosts
    user = fields["username"]
    return replace(base, hosts=hosts, user=user, password=fields["password"], database=name or base.database or user)


def _malformed(source: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{source} {what}.",
        solutions=['Store a connection string, {"DATABASE_URL": "..."}, or {"username": "...", "password": "..."}.'],
    )


def store_of(environ: Mapping[str, str]) -> tuple[str, Store] | None:
    """Find which variable names a store, and that store. Raises ConfigurationError where several are set."""
    found: dict[str, Store] = {}
    if name := environ.get(SECRET, "").strip():
        found[SECRET] = aws.SecretsManager(name)
    if name := environ.get(PARAMETER, "").strip():
        found[PARAMETER] = aws.ParameterStore(name)
    if len(found) > 1:
        raise ConfigurationError(f"{SECRET} and {PARAMETER} are both set.", solutions=["Remove one of them."])
    return next(iter(found.items()), None)


def asks_aws(environ: Mapping[str, str]) -> bool:
    """Tell whether these variables say that AWS keeps the password, so that boto3 is needed."""
    named = any(environ.get(name, "").strip() for name in (SECRET, PARAMETER))
    return named or environ.get(IAM, "").strip().lower() not in ("", "false", "0", "no", "off")


_sources: "weakref.WeakSet[Stored]" = weakref.WeakSet()


def _after_fork() -> None:
    # The thread that asked, and those that held the lock, are the parent's.
    aws.after_fork()
    for source in _sources:
        source._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

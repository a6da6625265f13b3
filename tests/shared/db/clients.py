"""Six ways to talk to a database, behind one small protocol: each driver alone, under SQLAlchemy, and under ours.

What they raise is what the driver, SQLAlchemy or shared.db raises: nothing is translated here.
"""

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import pg8000.dbapi
import psycopg
from sqlalchemy import NullPool, create_engine

from shared import deadline
from shared.db import drivers, tls
from shared.db.url import DatabaseURL

SILENCE = 1.0  # seconds that a client waits for a server; psycopg and libpq take no less than 2


class Session(Protocol):
    """An open connection in autocommit mode."""

    def run(self, sql: str) -> None: ...

    def close(self) -> None: ...


class Client(NamedTuple):
    """One of them."""

    name: str
    driver: str
    connect: Callable[[DatabaseURL], Session]


class _Raw:
    """A driver's own connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def run(self, sql: str) -> None:
        cursor = self.connection.cursor()
        cursor.execute(sql)
        if cursor.description:
            cursor.fetchall()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.connection.close()


class _Alchemy:
    """A connection of an SQLAlchemy engine."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.engine = create_engine(name, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
        self.connection = self.engine.connect()

    def run(self, sql: str) -> None:
        result = self.connection.exec_driver_sql(sql)
        if result.returns_rows:
            result.all()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.connection.close()
        self.engine.dispose()


class _Ours:
    """A connection of shared.db, under a deadline as in a request."""

    def __init__(self, url: DatabaseURL, driver: str) -> None:
        self.connection = drivers.connect(url, driver, connect_timeout=SILENCE)

    def run(self, sql: str) -> None:
        with deadline.within(5 * SILENCE):
            self.connection.fetch(sql)

    def close(self) -> None:
        self.connection.close()


def for_psycopg(url: DatabaseURL) -> dict[str, Any]:
    return {"connect_timeout": "2", "prepare_threshold": None, **url.connect_kwargs()}


def for_pg8000(url: DatabaseURL) -> dict[str, Any]:
    context: ssl.SSLContext | bool | None = False if url.hosts[0].is_socket else tls.ssl_context(url)
    where: dict[str, Any] = {"host": url.host, "port": url.port}
    if url.hosts[0].is_socket:
        where = {"unix_sock": f"{url.host}/.s.PGSQL.{url.port}"}
    return {
        **where,
        "user": url.user,
        "password": url.password,
        "database": url.database,
        "ssl_context": context,
        "timeout": float(url.params.get("connect_timeout", SILENCE)),
        "startup_params": {"options": url.params["options"]} if "options" in url.params else None,
    }


def _psycopg(url: DatabaseURL) -> Session:
    return _Raw(psycopg.connect(autocommit=True, **for_psycopg(url)))


def _pg8000(url: DatabaseURL) -> Session:
    connection = pg8000.dbapi.connect(**for_pg8000(url))
    connection.autocommit = True
    return _Raw(connection)


CLIENTS = (
    Client("psycopg", "psycopg", _psycopg),
    Client("pg8000", "pg8000", _pg8000),
    Client("sqlalchemy+psycopg", "psycopg", lambda url: _Alchemy("postgresql+psycopg://", for_psycopg(url))),
    Client("sqlalchemy+pg8000", "pg8000", lambda url: _Alchemy("postgresql+pg8000://", for_pg8000(url))),
    Client("ours+psycopg", "psycopg", lambda url: _Ours(url, "psycopg")),
    Client("ours+pg8000", "pg8000", lambda url: _Ours(url, "pg8000")),
)

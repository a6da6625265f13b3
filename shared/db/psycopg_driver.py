"""psycopg behind the drivers' protocol, with the deadline kept without a thread."""

import contextlib
import select
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import PQGen, PQGenConn
from psycopg.rows import DictRow, dict_row

from shared import deadline
from shared.db.drivers import Liveness, Params, Row
from shared.db.failures import connect_error_from, error_from, first_line
from shared.db.url import DatabaseURL
from shared.errors import DeadlineExceeded

_T = TypeVar("_T")
_CANCEL_TIMEOUT = 1.0  # seconds for a cancelled statement to end before its connection is given up
_IDLE = pq.TransactionStatus.IDLE
_INERROR = pq.TransactionStatus.INERROR

# Seconds for each address that is tried; psycopg's connect takes no such argument.
_connect_limit: ContextVar[float] = ContextVar("connect_limit")


class _DeadlineConnection(psycopg.Connection[DictRow]):
    """A psycopg connection whose every wait ends with the deadline."""

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        left = deadline.bound(timeout)
        try:
            return super().wait(gen, interval, left)
        except psycopg.errors._WaitTimeout:
            if timeout is not None and left == timeout:
                raise
            return self._cancel(gen)

    def _cancel(self, gen: PQGen[_T]) -> _T:
        """Cancel the statement on the server; a connection that does not come back in time is closed.

        A statement that ends by itself in that moment keeps its result.
        """
        try:
            self.cancel_safe(timeout=_CANCEL_TIMEOUT)
            return super().wait(gen, 0.1, _CANCEL_TIMEOUT)
        except psycopg.errors.QueryCanceled:
            pass
        except (psycopg.Error, psycopg.errors._WaitTimeout):
            self.pgconn.finish()
        raise DeadlineExceeded("The statement took longer than the time that was left, and was cancelled.")

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn["_DeadlineConnection"]:
        # psycopg waits at least 2 s for each address. This ends with our limit, and is resumed every 0.1 s at least.
        limit = deadline.bound(_connect_limit.get())
        assert limit is not None
        until = time.monotonic() + limit
        gen = super()._connect_gen(conninfo)
        ready: Any = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if time.monotonic() >= until:
                gen.close()
                raise psycopg.errors.ConnectionTimeout("connection timeout expired")
            ready = yield wanted


class PsycopgConnection:
    """The drivers' protocol over psycopg."""

    def __init__(self, raw: psycopg.Connection[DictRow]) -> None:
        self.raw = raw
        self._begin: str | None = None  # waits for the statement that it travels with
        self._poll = select.poll()
        self._poll.register(raw.pgconn.socket, select.POLLIN)

    @property
    def closed(self) -> bool:
        return self.raw.closed

    @property
    def in_transaction(self) -> bool:
        return self.raw.pgconn.transaction_status != _IDLE

    @property
    def in_failed_transaction(self) -> bool:
        return self.raw.pgconn.transaction_status == _INERROR

    def begin(self, sql: str) -> None:
        self._begin = sql

    def end(self, sql: str) -> None:
        if self._begin is None:
            self.execute(sql)
        self._begin = None

    def fetch(self, sql: str, params: Params = None) -> list[Row]:
        try:
            return self._run(sql, params).fetchall()
        except psycopg.Error as error:
            _raise(error)

    def execute(self, sql: str, params: Params = None) -> int:
        try:
            return max(0, self._run(sql, params).rowcount)
        except psycopg.Error as error:
            _raise(error)

    def execute_many(self, sql: str, sequence: Iterable[Mapping[str, Any]]) -> int:
        try:
            begin, self._begin = self._begin, None
            with self.raw.cursor() as cursor:
                with self.raw.pipeline():
                    if begin is not None:
                        self.raw.execute(begin)
                    cursor.executemany(sql, list(sequence))
                return max(0, cursor.rowcount)
        except psycopg.Error as error:
            _raise(error)

    def _run(self, sql: str, params: Params) -> psycopg.Cursor[DictRow]:
        if self._begin is None:
            return self.raw.execute(sql, params)
        begin, self._begin = self._begin, None
        if params is None and ";" in sql:  # perhaps several statements, which a pipeline does not take
            self.raw.execute(begin)
            return self.raw.execute(sql)
        with self.raw.pipeline():
            self.raw.execute(begin)
            return self.raw.execute(sql, params)

    def parameter(self, name: str) -> str | None:
        value = self.raw.pgconn.parameter_status(name.encode())
        return None if value is None else value.decode()

    def liveness(self) -> Liveness:
        # The first consume_input swallows the server's farewell and leaves the status OK; only the next one sees the
        # end of the stream. A notification also makes the socket readable, and is no reason to close.
        pgconn = self.raw.pgconn
        if self.raw.closed:
            return "dead"
        try:
            while self._poll.poll(0):
                pgconn.consume_input()
                if pgconn.status != pq.ConnStatus.OK:
                    return "dead"
        except psycopg.Error:
            return "dead"
        return "alive"

    def cancel(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.raw.cancel_safe(timeout=_CANCEL_TIMEOUT)

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.raw.close()


def connect(url: DatabaseURL, *, connect_timeout: float) -> PsycopgConnection:
    """Open a connection. Raises DatabaseUnavailable, whose text holds no password."""
    kwargs: dict[str, Any] = dict(url.connect_kwargs())
    # A host that is silent must leave time for the next.
    limit = deadline.bound(connect_timeout)
    assert limit is not None
    token = _connect_limit.set(limit / len(url.hosts))
    try:
        raw = _DeadlineConnection.connect(
            conninfo="", autocommit=True, prepare_threshold=None, row_factory=dict_row, **kwargs
        )
    except psycopg.Error as error:
        raise connect_error_from(error.sqlstate, first_line(_scrubbed(error))) from error
    finally:
        _connect_limit.reset(token)
    return PsycopgConnection(raw)


def _raise(error: psycopg.Error) -> NoReturn:
    message = error.diag.message_primary or first_line(error)
    raise error_from(error.sqlstate, message, error.diag.constraint_name) from _scrubbed(error)


def _scrubbed(error: psycopg.Error) -> psycopg.Error:
    # The libpq handle that hangs on a failed connect prints the password in its repr.
    error._pgconn = None
    return error

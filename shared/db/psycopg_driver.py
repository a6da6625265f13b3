"""psycopg behind the drivers' protocol, with the deadline kept without a thread."""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen, PQGenConn
from psycopg.adapt import PyFormat, Transformer
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGresult
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import JsonbDumper
from psycopg.waiting import Ready

from shared import deadline
from shared.db import tls
from shared.db.addresses import Attempts, Place
from shared.db.drivers import Liveness, Params, Row
from shared.db.failures import connect_error_from, error_from, first_line
from shared.db.placeholders import not_text, numbered, values
from shared.db.url import DatabaseURL, Host
from shared.errors import DatabaseError, DataException, DeadlineExceeded
from shared.request_log import count_flights

_T = TypeVar("_T")
_CANCEL_TIMEOUT = 1.0  # seconds for a cancelled statement to end before its connection is given up
_IDLE = pq.TransactionStatus.IDLE
_INERROR = pq.TransactionStatus.INERROR
_FINE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY)
_AUTO = PyFormat.AUTO
# How libpq repeats what a server said to who connects: the severity, in its language, with two spaces behind it.
_SERVER_SAID = re.compile(r"failed: [^:\n]+:  \S")

# Those of a connection that is being made; psycopg's connect takes no such argument.
_attempts: ContextVar[Attempts] = ContextVar("attempts")


class _Pipeline(psycopg.Pipeline):
    """A pipeline whose last word is Sync.

    psycopg's own is a Flush, at which the server takes back the timeout for an idle transaction and sets it no more
    until the next statement (PostgreSQL 16 to 18): an instance that is frozen there would hold its locks for ever.
    """

    def _exit_gen(self) -> PQGen[None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            if self.result_queue:
                yield from generators.send(self.pgconn)
            yield from self._fetch_gen(flush=False)


class _DeadlineConnection(psycopg.Connection[DictRow]):
    """A psycopg connection whose every wait ends with the deadline."""

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        if self._pipeline is None:
            self._pipeline = _Pipeline(self)
        with super().pipeline() as pipeline:
            yield pipeline

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
            return super().wait(_resumed(gen), 0.1, _CANCEL_TIMEOUT)
        except psycopg.errors.QueryCanceled:
            pass
        except (psycopg.Error, psycopg.errors._WaitTimeout):
            self.pgconn.finish()
        raise DeadlineExceeded("The statement took longer than the time that was left, and was cancelled.")

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn["_DeadlineConnection"]:
        # psycopg waits at least 2 s for each address. This ends with our limit, and is resumed every 0.1 s at least.
        attempts = _attempts.get()
        limit = deadline.bound(attempts.share())
        assert limit is not None
        if attempts.refused and (host := _host(conninfo)) in attempts.refused:
            raise attempts.refused[host]
        until = time.monotonic() + limit
        gen = super()._connect_gen(conninfo)
        ready: Any = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            except psycopg.Error as error:
                if _SERVER_SAID.search(str(error)):
                    attempts.refused[_host(conninfo)] = error
                raise
            if time.monotonic() >= until:
                gen.close()
                raise psycopg.errors.ConnectionTimeout("connection timeout expired")
            ready = yield wanted


def _host(conninfo: str) -> Host:
    params = conninfo_to_dict(conninfo)
    return Host(str(params.get("host")), int(params.get("port") or 5432))


def _resumed(gen: PQGen[_T]) -> PQGen[_T]:
    """Go on with a generator in its middle: psycopg's wait would begin with None, which its C code does not take."""
    ready: int = Ready.NONE
    while True:
        try:
            wanted = gen.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        ready = yield wanted


def _check_time() -> None:
    if deadline.remaining() == 0:
        raise DeadlineExceeded("The time was used up before the statement was sent.")


class PsycopgConnection:
    """The drivers' protocol over psycopg.

    A statement goes to libpq without a psycopg cursor, which would cost more than twice the time of the whole call
    (bench/reads.py). What psycopg does for a cursor in pure Python is not needed here: values are converted by its
    Transformer, and results are waited for by its generators, both of which are compiled.
    """

    def __init__(self, raw: psycopg.Connection[DictRow]) -> None:
        self.raw = raw
        self._begin: str | None = None  # waits for the statement that it travels with
        self._transformer = Transformer(raw)
        self._encoding = raw.info.encoding

    @property
    def closed(self) -> bool:
        return self.raw.closed

    @property
    def in_transaction(self) -> bool:
        # A BEGIN that still waits would open a transaction for the next borrower.
        return self._begin is not None or self.raw.pgconn.transaction_status != _IDLE

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
            if self._needs_cursor(sql, params):
                cursor = self._run_cursor(sql, params)
                return cursor.fetchall() if cursor.description else []
            result = self._run(sql, params)
            names = [(result.fname(column) or b"").decode(self._encoding) for column in range(result.nfields)]
            self._transformer.set_pgresult(result)
            return self._transformer.load_rows(0, result.ntuples, lambda values: dict(zip(names, values, strict=True)))
        except (psycopg.Error, UnicodeEncodeError) as error:
            _raise(error)

    def execute(self, sql: str, params: Params = None) -> int:
        try:
            if self._needs_cursor(sql, params):
                return max(0, self._run_cursor(sql, params).rowcount)
            return self._run(sql, params).command_tuples or 0
        except (psycopg.Error, UnicodeEncodeError) as error:
            _raise(error)

    def execute_many(self, sql: str, sequence: Iterable[Mapping[str, Any]]) -> int:
        _check_time()
        try:
            begin, self._begin = self._begin, None
            count_flights()
            with self.raw.cursor() as cursor:
                with self.raw.pipeline():
                    if begin is not None:
                        self.raw.execute(begin)
                    cursor.executemany(sql, list(sequence))
                return max(0, cursor.rowcount)
        except (psycopg.Error, UnicodeEncodeError) as error:
            _raise(error)

    def call(self, function: Callable[[], _T], *, alone: bool) -> _T:
        _check_time()
        begin, self._begin = self._begin, None
        try:
            count_flights()
            if begin is None:
                return function()
            if alone:
                count_flights()
                self.raw.execute(begin)
                return function()
            with self.raw.pipeline():
                self.raw.execute(begin)
                return function()
        except psycopg.Error:
            if self.raw.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                self.raw.pgconn.finish()  # it waits for data in the middle of a COPY
            raise

    def _needs_cursor(self, sql: str, params: Params) -> bool:
        """Tell whether a statement travels with its BEGIN, or may be several, which the extended protocol refuses."""
        return self._begin is not None or (params is None and ";" in sql)

    def _run(self, sql: str, params: Params) -> PGresult:
        _check_time()
        raw = self.raw
        transformer = self._transformer
        count_flights()
        if params is None:
            raw.pgconn.send_query_params(sql.encode(self._encoding), None)
        else:
            statement, names = numbered(sql)
            given = transformer.dump_sequence(values(names, params), [_AUTO] * len(names))
            raw.pgconn.send_query_params(
                statement.encode(self._encoding), given, transformer.types, transformer.formats
            )
        return raw.wait(self._result())

    def _result(self) -> PQGen[PGresult]:
        pgconn = self.raw.pgconn
        result: PGresult = (yield from generators.execute(pgconn))[-1]
        if result.status in _FINE:
            return result
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, self._encoding)
        pgconn.finish()  # it waits for data in the middle of a COPY
        raise psycopg.NotSupportedError("COPY")

    def _run_cursor(self, sql: str, params: Params) -> psycopg.Cursor[DictRow]:
        _check_time()
        if params is not None:
            values(numbered(sql)[1], params)  # one rule for parameters, whichever way a statement takes
        begin, self._begin = self._begin, None
        count_flights()
        if begin is None:
            return self.raw.execute(sql)
        if params is None and ";" in sql:
            count_flights()
            self.raw.execute(begin)
            return self.raw.execute(sql)
        with self.raw.pipeline():
            self.raw.execute(begin)
            return self.raw.execute(sql, params)

    @property
    def backend_pid(self) -> int:
        return self.raw.info.backend_pid

    def parameter(self, name: str) -> str | None:
        value = self.raw.pgconn.parameter_status(name.encode())
        return None if value is None else value.decode()

    def liveness(self) -> Liveness:
        # The first consume_input swallows the server's farewell and leaves the status OK; only the second sees the end
        # of the stream. Neither waits. A notification may be there too, and is no reason to close. No poll before
        # them: it lets another thread have the interpreter, and in a busy process that costs more than all of this.
        pgconn = self.raw.pgconn
        try:
            pgconn.consume_input()
            pgconn.consume_input()
        except psycopg.Error:
            return "dead"
        return "alive" if pgconn.status == pq.ConnStatus.OK else "dead"

    def cancel(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.raw.cancel_safe(timeout=_CANCEL_TIMEOUT)

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.raw.close()


def connect(url: DatabaseURL, *, connect_timeout: float) -> PsycopgConnection:
    """Open a connection. Raises DatabaseUnavailable, whose text holds no password; ConfigurationError."""
    tls.check_roots(url)
    # An address that is silent must leave time for the next.
    limit = deadline.bound(connect_timeout)
    assert limit is not None
    attempts = Attempts(url, limit)
    token = _attempts.set(attempts)
    try:
        raw = _open(url, attempts.places)
    except psycopg.Error as error:
        told = next(reversed(attempts.refused.values()), error)
        assert isinstance(told, psycopg.Error)
        failure = _scrubbed(told)
    else:
        return PsycopgConnection(raw)
    finally:
        _attempts.reset(token)
    message = first_line(failure)
    if "root certificate file" in message:
        raise tls.unreadable_roots(url) from failure
    # Not yet to be told apart: an unknown authority and an expired certificate, for which libpq has one text.
    raise connect_error_from(failure.sqlstate, message) from failure


def _open(url: DatabaseURL, places: list[Place]) -> psycopg.Connection[DictRow]:
    kwargs: dict[str, Any] = dict(url.connect_kwargs())
    if any(place.address for place in places):
        kwargs["host"] = ",".join(place.host.name for place in places)
        kwargs["hostaddr"] = ",".join(place.address for place in places)
        kwargs["port"] = ",".join(str(place.host.port) for place in places)
    raw = _DeadlineConnection.connect(
        conninfo="", autocommit=True, prepare_threshold=None, row_factory=dict_row, **kwargs
    )
    raw.adapters.register_dumper(dict, JsonbDumper)  # as pg8000 does
    return raw


def _raise(error: psycopg.Error | UnicodeEncodeError) -> NoReturn:
    if isinstance(error, UnicodeEncodeError):
        raise not_text(error) from error
    message = error.diag.message_primary or first_line(error)
    error._pgconn = None  # its repr prints the password
    if error.sqlstate is None and "COPY" in message:
        raise DatabaseError(
            "COPY is not done by these functions: use a connection of your own for it.", sqlstate="0A000"
        ) from error
    if error.sqlstate is None and isinstance(error, psycopg.DataError):  # a zero byte, which the server refuses too
        raise DataException(message, sqlstate="22021") from error
    if error.sqlstate is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        raise DatabaseError(message) from error  # psycopg itself refused a value
    raise error_from(error.sqlstate, message, error.diag.constraint_name) from error


def _scrubbed(error: psycopg.Error) -> psycopg.Error:
    """Take from the error of a failed connect what holds the password: libpq's handle and psycopg's frames."""
    error._pgconn = None
    return error.with_traceback(None)

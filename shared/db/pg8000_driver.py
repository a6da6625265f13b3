"""pg8000 behind the drivers' protocol, for where psycopg's binary cannot be loaded.

Stock pg8000 sends Parse, Describe and Execute as three round trips, and between them a transaction pooler may change
the server: the result is another client's (PgBouncer issue 1288). Ours sends one statement as one Sync. The methods it
overrides are private, so requirements.txt pins the version.
"""

import contextlib
import io
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import pg8000.dbapi
from pg8000.converters import array_out, make_params
from pg8000.core import NULL_BYTE, SYNC_MSG, Context, _flush, _write

from shared import deadline
from shared.db import tls
from shared.db.addresses import Attempts, Place
from shared.db.drivers import Liveness, Params, Row
from shared.db.failures import connect_error_from, error_from, first_line
from shared.db.placeholders import not_text, numbered, values
from shared.db.url import DatabaseURL, Host
from shared.errors import DatabaseError, DatabaseUnavailable, DeadlineExceeded
from shared.request_log import count_flights

_T = TypeVar("_T")
_KEEPALIVE_OPTIONS = (
    ("keepalives_idle", "TCP_KEEPIDLE"),
    ("keepalives_interval", "TCP_KEEPINTVL"),
    ("keepalives_count", "TCP_KEEPCNT"),
    ("tcp_user_timeout", "TCP_USER_TIMEOUT"),
)
# What its errors are made of: its own, and those of the socket, ssl and a handle that is gone.
_ERRORS = (pg8000.dbapi.Error, OSError, AttributeError)


@array_out.register  # type: ignore[untyped-decorator] # functools.singledispatch of a module without types
def _quoted(value: str) -> str:
    """Write a text as an array's element, always quoted: pg8000 leaves `null` bare, and the server takes it for NULL.

    Only `NULL` in capitals it knows, and the server takes any case (manual 8.15.6).
    """
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Wire(io.RawIOBase):
    """What pg8000 reads from and writes to: every wait ends with the deadline, however slowly an answer trickles in."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_time_left(deadline.remaining()))
        return self._socket.recv_into(buffer)

    def write(self, data: Any) -> int:
        if self._socket.fileno() < 0:  # given up: what pg8000's buffer still holds goes nowhere
            return len(data)
        self._socket.settimeout(_time_left(deadline.remaining()))
        return self._socket.send(data)


def _time_left(seconds: float | None) -> float | None:
    if seconds == 0:  # to a socket that would mean not to wait, but to fail in other ways
        raise TimeoutError("timed out")
    return seconds


class _OneSyncConnection(pg8000.dbapi.Connection):  # type: ignore[misc]
    """A pg8000 connection that sends a statement with parameters in one round trip.

    `begin`, where set, goes first in the same one. `sent` tells whether anything was sent since it was set to False.
    """

    begin: str | None = None
    sent = False

    @property
    def _sock(self) -> Any:
        """What pg8000 reads and writes, from its log-in on: a _Wire, not the socket's own file that it sets."""
        return self._file

    @_sock.setter
    def _sock(self, file: Any) -> None:
        if file is not None:
            wire = _Wire(self._usock)
            file = io.BufferedRWPair(wire, wire)
        self._file = file

    def fileno(self) -> int:
        descriptor: int = self._usock.fileno()
        return descriptor

    def _send_message(self, code: bytes, data: bytes) -> None:
        self.sent = True
        super()._send_message(code, data)

    def execute_simple(self, statement: str) -> Context:
        if self.begin is not None:
            statement, self.begin = f"{self.begin}; {statement}", None
        return super().execute_simple(statement)

    def execute_unnamed(
        self, statement: str, vals: tuple[Any, ...] = (), oids: tuple[int, ...] = (), stream: Any = None
    ) -> Context:
        if stream is not None:
            return super().execute_unnamed(statement, vals, oids, stream)
        context = Context(statement)
        bound = make_params(self.py_types, vals)
        "".join([statement, *(value for value in bound if value is not None)]).encode()  # before anything is written
        if self.begin is not None:
            self.send_PARSE(NULL_BYTE, self.begin)
            self.send_BIND(NULL_BYTE, ())
            self.send_EXECUTE()
            self.begin = None
        self.send_PARSE(NULL_BYTE, statement, oids)
        self.send_BIND(NULL_BYTE, bound)
        self._send_message(b"D", b"P" + NULL_BYTE)
        self.send_EXECUTE()
        _write(self._sock, SYNC_MSG)
        _flush(self._sock)
        self.handle_messages(context)
        return context

    def handle_messages(self, context: Context) -> None:
        try:
            super().handle_messages(context)
        except (pg8000.dbapi.InterfaceError, ConnectionError) as lost:
            if context.error is None:
                raise
            raise context.error from lost  # why the server hung up: pg8000 would forget it


class Pg8000Connection:
    """The drivers' protocol over pg8000. A statement past its deadline costs the connection."""

    def __init__(self, raw: _OneSyncConnection) -> None:
        self.raw = raw
        self._socket: socket.socket = raw._usock
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    @property
    def closed(self) -> bool:
        return self.raw._usock is None

    @property
    def in_transaction(self) -> bool:
        # A BEGIN that still waits would open a transaction for the next borrower.
        return bool(self.raw.begin is not None or self.raw._transaction_status != b"I")

    @property
    def in_failed_transaction(self) -> bool:
        return bool(self.raw._transaction_status == b"E")

    def begin(self, sql: str) -> None:
        self.raw.begin = sql

    def end(self, sql: str) -> None:
        if self.raw.begin is None:
            self.execute(sql)
        self.raw.begin = None

    def fetch(self, sql: str, params: Params = None) -> list[Row]:
        context = self._run(sql, params)
        names = [column["name"] for column in context.columns or ()]
        return [dict(zip(names, row, strict=True)) for row in context.rows or ()]

    def execute(self, sql: str, params: Params = None) -> int:
        return max(0, int(self._run(sql, params).row_count))

    def execute_many(self, sql: str, sequence: Iterable[Mapping[str, Any]]) -> int:
        return sum(self.execute(sql, params) for params in sequence)

    def call(self, function: Callable[[], _T], *, alone: bool) -> _T:
        self._prepare_to_send()
        count_flights()
        try:
            if alone and self.raw.begin is not None:
                begin, self.raw.begin = self.raw.begin, None
                count_flights()
                self.raw.execute_simple(begin)
            return function()
        except BaseException as error:
            self._settle(error)
            if isinstance(error, OSError):
                raise pg8000.dbapi.InterfaceError(f"network error: {error}") from error
            raise

    @property
    def backend_pid(self) -> int:
        return int.from_bytes((self.raw._backend_key_data or b"")[:4], "big")

    def parameter(self, name: str) -> str | None:
        value: str | None = self.raw.parameter_statuses.get(name)
        return value

    def liveness(self) -> Liveness:
        if self.closed:
            return "dead"
        if not self._poll.poll(0):
            return "alive"
        if hasattr(self._socket, "pending"):  # TLS cannot be peeked into: ask for a ping
            return "unknown"
        with contextlib.suppress(OSError):
            # An ErrorResponse that nobody asked for is the server's farewell; anything else may be a notification.
            return "dead" if self._socket.recv(1, socket.MSG_PEEK) in (b"", b"E") else "unknown"
        return "dead"

    def cancel(self) -> None:
        # A CancelRequest travels on a connection of its own (manual 54.2.8), unencrypted as libpq's did until 17.
        request = (16).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + (self.raw._backend_key_data or b"")
        with contextlib.suppress(*_ERRORS):
            family, address = self._socket.family, self._socket.getpeername()
            with socket.socket(family, socket.SOCK_STREAM) as cancel:
                cancel.settimeout(1.0)
                cancel.connect(address)
                cancel.sendall(request)
                cancel.recv(1)

    def close(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self.raw.close()

    def _prepare_to_send(self) -> None:
        if deadline.remaining() == 0:
            raise DeadlineExceeded("The time was used up before the statement was sent.")
        if self.closed:
            raise DatabaseUnavailable("the connection is closed")
        self.raw.sent = False

    def _run(self, sql: str, params: Params) -> Context:
        self._prepare_to_send()
        count_flights()
        try:
            if params is None:
                return self.raw.execute_simple(sql)
            statement, names = numbered(sql)
            return self.raw.execute_unnamed(statement, values(names, params))
        except DatabaseError:  # nothing was sent
            raise
        except UnicodeEncodeError as error:
            raise not_text(error) from error
        except BaseException as error:
            self._settle(error)
            if "COPY" in str(error):
                raise DatabaseError(
                    "COPY is not done by these functions: use a connection of your own for it.", sqlstate="0A000"
                ) from error
            if isinstance(error, _ERRORS):
                _raise(error)
            raise

    def _settle(self, error: BaseException) -> None:
        """Give the connection up, unless nothing was sent or the server's own word ended the statement.

        After anything else, such as KeyboardInterrupt, the rest of the answer would be taken for the next statement's.
        Raises DeadlineExceeded.
        """
        is_answer = isinstance(error, _ERRORS) and _details(error) and error.__cause__ is None
        if not self.raw.sent or is_answer:
            return
        if _timed_out(error) or not isinstance(error, _ERRORS):
            self.cancel()
        self._give_up()
        if _timed_out(error):
            raise DeadlineExceeded(
                "The statement took longer than the time that was left, and was cancelled."
            ) from error

    def _give_up(self) -> None:
        """Close the socket, and say no goodbye on it."""
        with contextlib.suppress(OSError):
            self._socket.close()
        self.raw._usock = None
        self.raw._sock = None


def connect(url: DatabaseURL, *, connect_timeout: float) -> Pg8000Connection:
    """Open a connection to the first host that answers and is of the kind that target_session_attrs asks for.

    Raises DatabaseUnavailable. Of libpq's parameters, application_name, options, sslmode, sslrootcert, keepalives_*,
    tcp_user_timeout and target_session_attrs have a meaning here.
    """
    wanted = url.params.get("target_session_attrs", "any")
    # An address that is silent must leave time for the next.
    limit = deadline.bound(connect_timeout)
    assert limit is not None
    attempts = Attempts(url, limit)
    failure = DatabaseUnavailable("no host was tried")
    # Like libpq, prefer-standby takes any host once all of them were found not to be a standby.
    for kind in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
        for place in attempts.places:
            share = attempts.share()
            if place.host in attempts.refused:
                continue
            try:
                with deadline.within(share):
                    raw = _connect_to(place, url)
            except _ERRORS as error:
                failure = _connect_error(error)
                if _details(error):
                    attempts.refused[place.host] = failure
                continue
            if _session_fits(raw.parameter_statuses, kind):
                return Pg8000Connection(raw)
            with contextlib.suppress(*_ERRORS):
                raw.close()
            failure = DatabaseUnavailable(f"the session is not {kind}, which target_session_attrs asks for")
    raise next(reversed(attempts.refused.values()), failure)


def _connect_to(place: Place, url: DatabaseURL) -> _OneSyncConnection:
    host, options = place.host, url.params.get("options")
    connection = _dial(place, url.params, _time_left(deadline.remaining()))
    try:
        if not host.is_socket:
            connection = _encrypted(connection, host, url)
        raw = _OneSyncConnection(
            url.user,
            host=host.name,
            sock=connection,
            database=url.database,
            password=url.password or "",
            ssl_context=False,
            application_name=url.params.get("application_name"),
            startup_params={"options": options} if options else None,
        )
    except BaseException:
        # Not close(), which waits for pg8000's file object, and so for the garbage collector.
        with contextlib.suppress(OSError):
            os.close(connection.detach())
        raise
    raw.autocommit = True
    raw._transaction_status = b"I"
    return raw


def _dial(place: Place, params: Mapping[str, str], limit: float | None) -> socket.socket:
    """Open the socket ourselves: pg8000 leaves its own open when TLS is not answered."""
    host = place.host
    if host.is_socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(limit)
        try:
            connection.connect(f"{host.name}/.s.PGSQL.{host.port}")
        except OSError:
            connection.close()
            raise
        return connection
    connection = socket.create_connection((place.address, host.port), limit)
    # Else what follows a TLS handshake waits for the server to acknowledge the end of it, which takes 40 ms (Nagle's
    # algorithm, RFC 896, and the delayed acknowledgement). libpq sets it too.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(connection, params)
    return connection


def _encrypted(connection: socket.socket, host: Host, url: DatabaseURL) -> socket.socket:
    """Ask for TLS (manual 54.2.11) ourselves: pg8000 would load the system's root certificates for each connection."""
    context = _tls_context(url.sslmode, url.params.get("sslrootcert"))
    if context is False:
        return connection
    connection.settimeout(_time_left(deadline.remaining()))
    connection.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
    if connection.recv(1) == b"S":
        given = context if isinstance(context, ssl.SSLContext) else _tls_context("require", None)
        assert isinstance(given, ssl.SSLContext)
        connection.settimeout(_time_left(deadline.remaining()))
        return given.wrap_socket(connection, server_hostname=host.name)
    if context is not None:
        raise pg8000.dbapi.InterfaceError("Server refuses SSL")
    return connection


@lru_cache(maxsize=4)
def _tls_context(mode: str | None, roots: str | None) -> ssl.SSLContext | bool | None:
    """Make what `tls.ssl_context` does, once: to load root certificates takes 30 ms of processor time."""
    params = {name: value for name, value in (("sslmode", mode), ("sslrootcert", roots)) if value is not None}
    return tls.ssl_context(DatabaseURL(hosts=(), params=params))


def _keep_alive(connection: socket.socket, params: Mapping[str, str]) -> None:
    """Apply libpq's parameters on keepalives, as far as this system knows them."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _KEEPALIVE_OPTIONS:
        if name in params and hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), int(params[name]))


def _session_fits(reported: Mapping[str, str], wanted: str) -> bool:
    standby = reported.get("in_hot_standby") == "on"
    read_only = standby or reported.get("default_transaction_read_only") == "on"
    fits = {"primary": not standby, "standby": standby, "read-write": not read_only, "read-only": read_only}
    return fits.get(wanted, True)


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)


def _connect_error(error: Exception) -> DatabaseUnavailable:
    details = _details(error)
    result = connect_error_from(details.get("C"), details.get("M") or first_line(error.__cause__ or error))
    result.__cause__ = error
    link: BaseException | None = error
    while link is not None:  # the driver's frames hold the password
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return result


def _raise(error: Exception) -> NoReturn:
    details = _details(error)
    message = details.get("M") or first_line(error.__cause__ or error)
    raise error_from(details.get("C"), message, details.get("n")) from error


def _details(error: Exception) -> dict[str, str]:
    """Give the fields of the server's ErrorResponse (manual 54.8), none where the error is the network's."""
    return error.args[0] if error.args and isinstance(error.args[0], dict) else {}

"""The floor: the protocol alone (PostgreSQL manual 54), in as few flights as a server accepts, by the standard library.

A *flight* is a round trip: the client sends, then waits. The start-up packet takes the first SASL message with it, and
the last SASL message the first query: two flights, and a third for TLS, which begins without being asked for (17 and
newer). No driver does that: the query leaves before the server has shown that it knows the password, and the kind of
log-in is guessed. Here it says how much of a driver's time the wire cannot explain.
"""

import socket
import ssl
import struct
from urllib.parse import unquote, urlsplit

from shared.db import scram

_PROTOCOL = 196608  # 3.0
_STATEMENT = b"floor\0"
_SYNC = b"S\0\0\0\4"


class Floor:
    """One connection, opened by the first read, and one prepared statement with one parameter.

    With sslmode=require in the URL it takes TLS, and looks at no certificate, as libpq does then.
    """

    def __init__(self, url: str, sql: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 5432)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._database = unquote(parts.path[1:])
        self._tls = _context() if "sslmode=require" in parts.query else None
        self._sql = sql
        self._socket: socket.socket | None = None
        self._buffer = b""

    def read(self, value: str) -> list[str | None]:
        """Give the one row. Raises OSError for anything but a row."""
        if self._socket is None:
            return self._first(value)
        self._socket.sendall(self._execute(value))
        return self._row()

    def close(self) -> None:
        """Say goodbye, if there is a connection."""
        if self._socket is not None:
            self._socket.sendall(b"X\0\0\0\4")
            self._socket.close()
            self._socket = None

    def _first(self, value: str) -> list[str | None]:
        connection = socket.create_connection(self._address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_hostname=self._address[0])
        self._socket = connection
        client = scram.Client(self._password)
        first = client.first()
        names = f"user\0{self._user}\0database\0{self._database}\0\0".encode()
        start = struct.pack("!ii", len(names) + 8, _PROTOCOL) + names
        connection.sendall(start + _message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first))
        challenge = b""
        while challenge[:4] != struct.pack("!i", 11):  # SASLContinue
            challenge = self._message(b"R")
        prepare = _message(b"P", _STATEMENT + self._sql.encode() + b"\0\0\0")
        connection.sendall(_message(b"p", client.final(challenge[4:])) + prepare + self._execute(value))
        final = self._message(b"R")
        if final[:4] != struct.pack("!i", 12) or not client.is_server(final[4:]):  # SASLFinal
            raise OSError("the server does not know the password")
        self._until(b"Z")  # ready after the log-in; the next one ends the query
        return self._row()

    def _execute(self, value: str) -> bytes:
        text = value.encode()
        bind = b"\0" + _STATEMENT + struct.pack("!hhi", 0, 1, len(text)) + text + b"\0\0"
        return _message(b"B", bind) + _message(b"E", b"\0\0\0\0\0") + _SYNC

    def _row(self) -> list[str | None]:
        row: list[str | None] = []
        content, at = self._until(b"D"), 2
        for _ in range(int.from_bytes(content[:2], "big")):
            size = int.from_bytes(content[at : at + 4], "big", signed=True)
            at += 4
            row.append(None if size < 0 else content[at : at + size].decode())
            at += max(0, size)
        self._until(b"Z")
        return row

    def _until(self, wanted: bytes) -> bytes:
        """Skip to a message of this type, and give its content. Raises OSError for the end of the query before it."""
        while True:
            kind, content = self._next()
            if kind == wanted:
                return content
            if kind == b"E" or (kind == b"Z" and wanted == b"D"):
                raise OSError(f"the server answers {kind!r}: {content!r}")

    def _message(self, wanted: bytes) -> bytes:
        kind, content = self._next()
        if kind != wanted:
            raise OSError(f"the server answers {kind!r}: {content!r}")
        return content

    def _next(self) -> tuple[bytes, bytes]:
        buffer = self._buffer
        while len(buffer) < 5 or len(buffer) <= (end := int.from_bytes(buffer[1:5], "big")):
            assert self._socket is not None
            got = self._socket.recv(65536)
            if not got:
                raise OSError("the server closed the connection")
            buffer += got
        self._buffer = buffer[end + 1 :]
        return buffer[:1], buffer[5 : end + 1]


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])  # without which a server refuses TLS that it did not offer (54.2.11)
    return context


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content

"""Connect to a server step by step, and tell where it fails: libpq hides what the wire says.

A name, a TCP connection, TLS, the start-up packet, the password, and PostgreSQL's "ready": with the standard library
alone, over the frontend/backend protocol (PostgreSQL manual 54). Nothing is sent that the driver would not send; a
clear-text password never leaves unencrypted.
"""

import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from shared.db import scram, tls
from shared.db.url import DatabaseURL, Host
from shared.errors import ConfigurationError

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PROTOCOL = 196608  # 3.0
_LONGEST = 65536  # bytes of a message that is believed; what is not PostgreSQL may claim any length


@dataclass(frozen=True)
class Seen:
    """What a probe saw. `trouble` is empty where everything worked; `steps` are for people, and hold no secret."""

    steps: tuple[str, ...]
    trouble: str = ""
    sqlstate: str | None = None
    is_encrypted: bool = False


class _Trouble(Exception):
    """The step that failed, in words that the table of diagnoses knows."""

    def __init__(self, words: str, sqlstate: str | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.sqlstate = sqlstate


def probe(url: DatabaseURL, timeout: float = 5.0) -> Seen:
    """Connect to the URL's hosts one after the other, in `timeout` seconds in all, and say what was seen.

    The first host that works counts, else the first. Never raises for what a server does.
    """
    until = time.monotonic() + timeout
    found: list[Seen] = []
    for left, host in zip(range(len(url.hosts), 0, -1), url.hosts, strict=True):
        share = max(0.0, until - time.monotonic()) / left
        seen = _probe_host(url, host, time.monotonic() + share)
        if not seen.trouble:
            return seen
        found.append(seen)
    return found[0]


def _probe_host(url: DatabaseURL, host: Host, until: float) -> Seen:
    attempt = _Attempt(url, host, until)
    seen = attempt.run()
    if seen.sqlstate in ("28000", "08P01") and not seen.is_encrypted and not host.is_socket:
        # Refused in plain text: is it TLS that is missing?
        encrypted = _Attempt(url.with_params(sslmode="require", sslrootcert=None), host, until).run()
        if encrypted.is_encrypted and encrypted.sqlstate not in ("28000", "08P01"):
            steps = (*seen.steps, "over TLS it goes on")
            return Seen(steps, "takes only TLS")
    if not seen.trouble and url.params.get("sslnegotiation") == "direct":
        return replace(seen, trouble="connects without it")
    return seen


@dataclass
class _Attempt:
    """One connection, from the name to "ready"."""

    url: DatabaseURL
    host: Host
    until: float
    steps: list[str] = field(default_factory=list)
    is_encrypted: bool = False

    def run(self) -> Seen:
        trouble, sqlstate = "", None
        connection: socket.socket | None = None
        try:
            connection = self._dial()
            connection = self._encrypt(connection)
            self._log_in(connection)
        except _Trouble as error:
            trouble, sqlstate = error.words, error.sqlstate
        except ConfigurationError as error:
            trouble = error.message
        except TimeoutError:
            trouble = "timed out"
        except (OSError, ValueError) as error:
            trouble = f"the server closed the connection: {_reason(error)}"
        finally:
            if connection is not None:
                connection.close()
        if trouble:
            self.steps.append(trouble)
        return Seen(tuple(self.steps), trouble, sqlstate, self.is_encrypted)

    def _left(self) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    # -- to the server ------------------------------------------------------------------------------

    def _dial(self) -> socket.socket:
        if self.host.is_socket:
            return self._dial_socket(f"{self.host.name}/.s.PGSQL.{self.host.port}")
        addresses = self._resolve()
        self.steps.append(f"{self.host.name} is {', '.join(address for _, address in addresses)}")
        failure = _Trouble("timed out")
        for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.settimeout(self._left() / left)  # a silent address must leave time for the next
            try:
                connection.connect((address, self.host.port))
            except OSError as error:
                connection.close()
                failure = _Trouble("timed out" if isinstance(error, TimeoutError) else _reason(error))
                continue
            self.steps.append(f"TCP to port {self.host.port} works")
            return connection
        raise failure

    def _dial_socket(self, path: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._left())
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            raise _Trouble(f"on socket {path}: {_reason(error)}") from None
        return connection

    def _resolve(self) -> list[tuple[int, str]]:
        """Ask for the host's addresses in a thread: a name server that is silent cannot be waited for with a limit."""
        answer: list[Any] = []

        def ask() -> None:
            try:
                answer.append(socket.getaddrinfo(self.host.name, self.host.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                answer.append(error)

        thread = threading.Thread(target=ask, name="resolve", daemon=True)
        thread.start()
        thread.join(self._left())
        if not answer:
            raise _Trouble("the name server does not answer")
        if isinstance(answer[0], Exception):
            raise _Trouble(f"failed to resolve host: {_reason(answer[0])}")
        return list(dict.fromkeys((family, str(sockaddr[0])) for family, *_, sockaddr in answer[0]))

    def _encrypt(self, connection: socket.socket) -> socket.socket:
        context = False if self.host.is_socket else tls.ssl_context(self.url)
        if context is False:
            return connection
        # A silent port may wait for a question in another language: leave time to ask one.
        connection.settimeout(self._left() * 0.6)
        connection.sendall(_SSL_REQUEST)
        try:
            answer = connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            raise self._silence() from None
        if answer == b"N":
            connection.recv(1)
            self.steps.append("it has no TLS")
            if context is None:
                return connection
            raise _Trouble("server does not support SSL")
        if answer == b"S" and connection.recv(4, socket.MSG_PEEK)[1:] == b"":
            connection.recv(1)
            return self._handshake(connection, context)
        if answer == b"E":
            self._read_message(connection)  # from before TLS: the server has no process for us, and says why
        if answer == b"":
            raise _Trouble("server closed the connection unexpectedly, when it was asked for TLS")
        raise _Trouble("what answers is not PostgreSQL" + (": HTTP" if answer == b"H" else ""))

    def _handshake(self, connection: socket.socket, context: ssl.SSLContext | bool | None) -> socket.socket:
        if not isinstance(context, ssl.SSLContext):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection.settimeout(self._left())
        try:
            encrypted = context.wrap_socket(connection, server_hostname=self.host.name)
        except ssl.SSLCertVerificationError as error:
            raise _Trouble(f"certificate verify failed: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise _Trouble(f"the TLS handshake failed: {error.reason or error}") from None
        self.is_encrypted = True
        self.steps.append(f"TLS works ({encrypted.version()})")
        return encrypted

    def _silence(self) -> _Trouble:
        """Tell a server that hangs from one that speaks HTTP, which waits for the end of a line."""
        try:
            with socket.create_connection((self.host.name, self.host.port), self._left() / 2) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connection.recv(5) == b"HTTP/":
                    return _Trouble("what answers is not PostgreSQL: HTTP")
        except OSError:
            pass
        return _Trouble("the server accepts connections and says nothing")

    # -- to PostgreSQL ------------------------------------------------------------------------------

    def _log_in(self, connection: socket.socket) -> None:
        names = {"user": self.url.user, "database": self.url.database, "options": self.url.params.get("options", "")}
        pairs = "".join(f"{name}\0{value}\0" for name, value in names.items() if value)
        body = struct.pack("!i", _PROTOCOL) + pairs.encode() + b"\0"
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        client = scram.Client(self.url.password or "")
        has_answered = is_known = False
        while True:
            try:
                kind, content = self._read_message(connection)
            except TimeoutError:
                if is_known:
                    raise _Trouble("authenticated, then silence") from None
                if has_answered:
                    raise _Trouble("timed out while logging in") from None
                raise _Trouble("the server accepts connections and says nothing") from None
            has_answered = True
            if kind == b"Z":
                self.steps.append("connected and logged in")
                connection.sendall(b"X\0\0\0\4")
                return
            if kind == b"R":
                is_known = self._authenticate(connection, client, content)

    def _authenticate(self, connection: socket.socket, client: scram.Client, content: bytes) -> bool:
        """Answer an authentication request (manual 54.2.1); tell whether the server is content."""
        method = int.from_bytes(content[:4], "big")
        if method == 0:
            return True
        if method == 12:  # SASLFinal
            if not client.is_server(content[4:]):
                raise _Trouble("the server does not know the password either: somebody else answers in its place")
            return True
        if not self.url.password:
            raise _Trouble("no password supplied")
        if method == 3 and self.is_encrypted:
            answer = self.url.password.encode() + b"\0"
        elif method == 5:
            answer = scram.md5_answer(self.url.user, self.url.password, content[4:8])
        elif method == 10 and b"SCRAM-SHA-256\0" in content[4:]:
            first = client.first()
            answer = b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
        elif method == 11:
            answer = client.final(content[4:])
        else:
            raise _Trouble(f"the server asks for a way to log in that the probe does not know ({method})")
        connection.sendall(b"p" + struct.pack("!i", len(answer) + 4) + answer)
        return False

    def _read_message(self, connection: socket.socket) -> tuple[bytes, bytes]:
        """Read one message. Raises _Trouble for an ErrorResponse (manual 54.8), with its SQLSTATE and words."""
        header = self._read(connection, 5)
        size = int.from_bytes(header[1:], "big") - 4
        if not header[:1].isalpha() or not 0 <= size <= _LONGEST:
            raise _Trouble("what answers is not PostgreSQL")
        content = self._read(connection, size)
        if header[:1] == b"E":
            parts = content.decode("utf-8", "replace").split("\0")
            fields = {part[0]: part[1:] for part in parts if part}
            raise _Trouble(fields.get("M", "no reason given").partition("\n")[0], fields.get("C"))
        return header[:1], content

    def _read(self, connection: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            connection.settimeout(self._left())
            got = connection.recv(size - len(data))
            if not got:
                raise _Trouble("server closed the connection unexpectedly")
            data += got
        return data


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

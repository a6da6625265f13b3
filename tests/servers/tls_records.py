"""What can be seen of a TLS handshake from outside: the types and lengths of its records (RFC 8446, section 5)."""

from __future__ import annotations

CHANGE_CIPHER_SPEC, HANDSHAKE, APPLICATION_DATA = 0x14, 0x16, 0x17
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # before the first record, unless sslnegotiation=direct
HEADER = 5  # bytes: type, version, length
FINISHED = (53, 69)  # bytes: 4 of header, a SHA-256 or SHA-384 hash, 1 of type, 16 of tag


class ClientRecords:
    """Follow a client's stream to the end of its handshake.

    `will_speak` is true while all that it said last is "Finished" of TLS 1.3. Then it does not wait: in PostgreSQL's
    protocol its startup message comes next, and what a server says in between is session tickets.
    """

    def __init__(self) -> None:
        self.will_speak = False
        self._rest = b""
        self._ciphers_changed = False
        self._over = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._over:
            return
        self._rest = (self._rest + data).removeprefix(SSL_REQUEST)
        while len(self._rest) >= HEADER and not self._over:
            length = int.from_bytes(self._rest[3:HEADER], "big")
            if len(self._rest) < HEADER + length:
                break
            self._record(self._rest[0], length)
            self._rest = self._rest[HEADER + length :]
        if self._rest or self._over:
            self.will_speak = False

    def _record(self, kind: int, length: int) -> None:
        if kind == CHANGE_CIPHER_SPEC:
            self._ciphers_changed = True
        elif kind == APPLICATION_DATA and self._ciphers_changed and not self.will_speak:
            self.will_speak = length in FINISHED  # else part of a client certificate
        else:
            # Plain text, TLS 1.2 after its change of ciphers, or the startup message.
            self._over = kind != HANDSHAKE or self._ciphers_changed

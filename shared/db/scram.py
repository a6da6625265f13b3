"""The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677; PostgreSQL manual 54.3.1), and of MD5, for the probe.

No channel binding: the probe only wants to know whether the password is right. And what a server keeps of a password.
"""

import hashlib
import hmac
import secrets
import unicodedata
from base64 import b64decode, b64encode

ITERATIONS = 4096  # PostgreSQL's default (scram_iterations)
_MOST_ITERATIONS = 1_000_000  # a hostile server must not make us count for ever; PostgreSQL's default is 4096


class Client:
    """One exchange: `first`, then `final` with the server's answer, then `is_server` with its last word."""

    def __init__(self, password: str) -> None:
        # RFC 4013's normalization, as far as passwords that people can type need it.
        self._password = unicodedata.normalize("NFKC", password).encode()
        self._nonce = b64encode(secrets.token_bytes(18)).decode()
        self._signature = b""

    def first(self) -> bytes:
        """Give the first message; PostgreSQL takes the user's name from the start-up packet."""
        return f"n,,n=,r={self._nonce}".encode()

    def final(self, challenge: bytes) -> bytes:
        """Answer the server's challenge. Raises OSError where it is none."""
        fields = _fields(challenge)
        nonce, count = fields.get("r", ""), fields.get("i", "")
        if not nonce.startswith(self._nonce) or not count.isdecimal() or not 0 < int(count) <= _MOST_ITERATIONS:
            raise OSError("the server's SCRAM challenge is malformed")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, b64decode(fields.get("s", "")), int(count))
        bare = f"c=biws,r={nonce}"  # biws is base64 of "n,,"
        message = f"n=,r={self._nonce},{challenge.decode()},{bare}".encode()
        key = _hmac(salted, b"Client Key")
        proof = bytes(a ^ b for a, b in zip(key, _hmac(hashlib.sha256(key).digest(), message), strict=True))
        self._signature = _hmac(_hmac(salted, b"Server Key"), message)
        return f"{bare},p={b64encode(proof).decode()}".encode()

    def is_server(self, final: bytes) -> bool:
        """Tell whether the server has shown that it knows the password too."""
        return hmac.compare_digest(b64decode(_fields(final).get("v", "")), self._signature)


def verifier(password: str) -> str:
    """Give what `ALTER ROLE ... PASSWORD` takes in the place of the password (the form: manual, pg_authid).

    So the password itself is in no statement, and in no log. Raises ValueError where it is not printable ASCII: other
    characters must be normalized (RFC 4013) in full.
    """
    if not (password.isascii() and password.isprintable()):
        raise ValueError("only passwords of printable ASCII characters are turned into verifiers")
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    salt64, stored64, server64 = (b64encode(one).decode() for one in (salt, stored, _hmac(salted, b"Server Key")))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt64}${stored64}:{server64}"


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """Give the answer to an MD5 request: poolers and old servers still ask for it."""
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode() + b"\0"


def _fields(message: bytes) -> dict[str, str]:
    return {part[:1]: part[2:] for part in message.decode("utf-8", "replace").split(",")}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")

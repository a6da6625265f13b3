"""Passwords: hashed, verified, and the rules for a new one.

argon2 is loaded at the first hash: importing this module costs an endpoint nothing.
"""

import base64
import threading
from functools import cache
from typing import TYPE_CHECKING

from shared import deadline
from shared.settings import DEFAULT_ADMIN_PASSWORD
from shared.web.problem import Problem

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MINIMUM_LENGTH = 12  # characters
MAXIMUM_LENGTH = 1024

# One hash takes 64 MiB and more than one processor: an instance must not run out of either for a flood of sign-ins.
_AT_ONCE = 2
_PATIENCE = 5.0  # seconds to wait for one's turn
_turns = threading.BoundedSemaphore(_AT_ONCE)


def hash_password(password: str) -> str:
    """Hash a password with argon2id and argon2-cffi's defaults (RFC 9106, low-memory profile).

    Raises Problem 503 where too many others hash at the same time.
    """
    with _Turn():
        return hasher().hash(password)


def verify_password(password: str, password_hash: str | None) -> bool:
    """Tell whether the password belongs to the hash; False too where the hash is not one of argon2's.

    Without a hash, as where nobody has that address, it takes as long and is False. Raises Problem 503 as
    `hash_password` does.
    """
    from argon2.exceptions import InvalidHashError, VerificationError

    with _Turn():
        try:
            return hasher().verify(password_hash or _nobodys_hash(), password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(password_hash: str) -> bool:
    """Tell whether the hash was made with other parameters than those of today."""
    return hasher().check_needs_rehash(password_hash)


def check_length(password: str) -> None:
    """Raise ValueError where a password is longer than any that may be chosen: hashing it would only cost time."""
    if len(password) > MAXIMUM_LENGTH:
        raise ValueError(f"password is longer than {MAXIMUM_LENGTH} characters")


def check_new_password(password: str, email: str) -> None:
    """Raise Problem 422 saying why a new password may not be taken.

    Length is what counts (NIST SP 800-63B, 3.1.1.2): there are no rules on kinds of characters.
    """
    if len(password) < MINIMUM_LENGTH:
        trouble = f"is shorter than {MINIMUM_LENGTH} characters"
    elif len(password) > MAXIMUM_LENGTH:
        trouble = f"is longer than {MAXIMUM_LENGTH} characters"
    elif password.casefold() == email.casefold():
        trouble = "is the e-mail address"
    elif password.casefold() == DEFAULT_ADMIN_PASSWORD.casefold():
        trouble = "is the documented default, which everybody knows"
    else:
        return
    raise Problem(422, f"new_password {trouble}.")


@cache
def hasher() -> "PasswordHasher":
    """Give what hashes: the one place that knows the parameters."""
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    """Write a hash of today's parameters that no password has been found for: verifying it takes as long as any."""
    made = hasher()
    salt, digest = (base64.b64encode(bytes(length)).decode().rstrip("=") for length in (made.salt_len, made.hash_len))
    costs = f"m={made.memory_cost},t={made.time_cost},p={made.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


class _Turn:
    """One of the few hashes that may be worked on at once."""

    def __enter__(self) -> None:
        if not _turns.acquire(timeout=deadline.bound(_PATIENCE)):
            raise Problem(503, "The service is busy. Try again shortly.", headers={"Retry-After": "1"})

    def __exit__(self, *_: object) -> None:
        _turns.release()

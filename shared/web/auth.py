"""Password hashes.

argon2 is loaded at the first hash: importing this module costs an endpoint nothing.
"""


def hash_password(password: str) -> str:
    """Hash a password with argon2id and argon2-cffi's defaults (RFC 9106, low-memory profile)."""
    from argon2 import PasswordHasher

    return PasswordHasher().hash(password)


def verify_password(password: str, password_hash: str) -> bool:
    """Tell whether the password belongs to the hash; False too where the hash is not one of argon2's."""
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return PasswordHasher().verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False

"""Signed-in browsers: a token in a cookie, its hash in the database, and who may call an endpoint.

An endpoint says who may call it by the annotation of its parameter `user`: `SignedIn` is anybody with a session, `User`
who has also replaced an initial password, `Admin` a `User` whose role is admin.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString, TypedDict, TypeVar, cast

from starlette.requests import Request

from shared import db, settings
from shared.db.drivers import Params
from shared.web.client_address import client_address
from shared.web.origin import check_origin
from shared.web.problem import Problem

LIFETIME = timedelta(days=30)  # of a session, however much it is used
IDLE = timedelta(days=7)  # without a request, and it ends
_SEEN = timedelta(hours=1)  # how far `last_seen_at` may be behind: reading it must not cost a write each time

PASSWORD_CHANGE_REQUIRED = "urn:problem-type:password-change-required"  # noqa: S105 - names a problem

_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes in base64url

_WHO = """
SELECT u.id, u.email, u.role, u.must_change_password, s.id AS session_id,
       s.last_seen_at < now() - %(seen)s::interval AS is_behind
FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.token_hash = %(token_hash)s AND s.expires_at > now() AND s.last_seen_at > now() - %(idle)s::interval
"""

Anybody = TypeVar("Anybody", bound="SignedIn")


class Account(TypedDict):
    """What people see of themselves."""

    id: int
    email: str
    role: str
    must_change_password: bool


@dataclass(frozen=True)
class SignedIn:
    """Somebody with a session."""

    id: int
    email: str
    role: str
    must_change_password: bool
    session_id: int

    def check(self) -> None:
        """Raise Problem 403 where this person may not call."""

    @property
    def account(self) -> Account:
        """Give what people see of themselves."""
        return Account(id=self.id, email=self.email, role=self.role, must_change_password=self.must_change_password)


class User(SignedIn):
    """Somebody who has replaced an initial password."""

    def check(self) -> None:
        if self.must_change_password:
            raise Problem(
                403,
                "The initial password must be changed first.",
                type=PASSWORD_CHANGE_REQUIRED,
                title="Password change required",
            )


class Admin(User):
    """Somebody whose role is admin."""

    def check(self) -> None:
        super().check()
        if self.role != "admin":
            raise Problem(403, "Only admins may do this.")


def signed_in(request: Request, kind: type[Anybody]) -> Anybody:
    """Give who is signed in; one read, and a write once an hour.

    Raises Problem 401 without a session, and 403 where a page of another origin asks for a change or the person may not
    do this.
    """
    check_origin(request)
    token_hash = _hash_of_cookie(request)
    row = None
    if token_hash is not None:
        row = db.fetch_one(_WHO, {"token_hash": token_hash, "seen": _SEEN, "idle": IDLE})
    if row is None:
        raise Problem(401, "Sign in first.", headers={"WWW-Authenticate": "Cookie"})
    if row.pop("is_behind"):
        db.execute(
            "UPDATE sessions SET last_seen_at = now() WHERE id = %(id)s AND last_seen_at < now() - %(seen)s::interval",
            {"id": row["session_id"], "seen": _SEEN},
        )
    user = kind(**row)
    user.check()
    return user


def new_token() -> str:
    """Make a token that nobody can guess."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def begin(tx: db.Transaction, request: Request, *, user_id: int, password_hash: str, token: str) -> Account | None:
    """Add a session in place of the one that the request came with; None where the password is no longer that one.

    Doing it twice is as good as once.
    """
    # The lock keeps this apart from a change of the password at the same moment, which ends all sessions.
    account = tx.fetch_one(
        """
        SELECT id, email, role, must_change_password FROM users
        WHERE id = %(user_id)s AND password_hash = %(password_hash)s FOR NO KEY UPDATE
        """,
        {"user_id": user_id, "password_hash": password_hash},
    )
    if account is None:
        return None
    end(request, tx.execute)
    agent = re.sub(r"[\x00-\x1f\x7f]", "", request.headers.get("user-agent", ""))
    tx.execute(
        """
        INSERT INTO sessions (user_id, token_hash, ip_address, user_agent, expires_at)
        VALUES (%(user_id)s, %(token_hash)s, %(ip_address)s::inet, %(user_agent)s, now() + %(lifetime)s::interval)
        ON CONFLICT (token_hash) DO NOTHING
        """,
        {
            "user_id": user_id,
            "token_hash": _hash(token),
            "ip_address": client_address(request),
            "user_agent": agent[:512] or None,
            "lifetime": LIFETIME,
        },
    )
    return cast(Account, account)


def end(request: Request, execute: Callable[[LiteralString, Params], int] = db.execute) -> None:
    """Remove the session that the request came with, if any; in a transaction with its `execute`."""
    token_hash = _hash_of_cookie(request)
    if token_hash is not None:
        execute("DELETE FROM sessions WHERE token_hash = %(token_hash)s", {"token_hash": token_hash})


def cookie(request: Request, token: str) -> dict[str, str]:
    """Give the header that has the browser keep the token."""
    seconds = int(LIFETIME.total_seconds())
    return {"Set-Cookie": f"{cookie_name(request)}={token}; Max-Age={seconds}; {_attributes(request)}"}


def no_cookie(request: Request) -> dict[str, str]:
    """Give the header that has the browser forget the token."""
    return {"Set-Cookie": f"{cookie_name(request)}=; Max-Age=0; {_attributes(request)}"}


def cookie_name(request: Request) -> str:
    """Give the name of the cookie that holds the token."""
    # Browsers take a __Host- cookie only from HTTPS, for this host alone and without a Domain (RFC 6265bis, 4.1.3.2).
    return "__Host-session" if is_secure(request) else "session"


def _attributes(request: Request) -> str:
    return f"Path=/; {'Secure; ' if is_secure(request) else ''}HttpOnly; SameSite=Lax"


def is_secure(request: Request) -> bool:
    """Tell whether a cookie may travel by HTTPS only: always but in development over http://localhost."""
    return settings.get_settings().is_production_like or request.scope["scheme"] == "https"


def _hash_of_cookie(request: Request) -> bytes | None:
    """Give what the database knows the session by; None without a cookie, or with one that cannot be ours."""
    token = request.cookies.get(cookie_name(request), "")
    return _hash(token) if _TOKEN.fullmatch(token) else None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

"""Sign in."""

from dataclasses import dataclass
from typing import Annotated

from shared import db
from shared.web import Endpoint, Problem, Reply, Request, lambda_handler, sessions, throttle
from shared.web.auth import check_length, hash_password, needs_rehash, verify_password
from shared.web.client_address import client_address
from shared.web.origin import check_origin

endpoint = Endpoint("/api/auth/login")


@dataclass
class Credentials:
    email: str
    password: str

    def __post_init__(self) -> None:
        if len(self.email) > 254:  # as the table has it
            raise ValueError("email is longer than 254 characters")
        check_length(self.password)


@endpoint.post
def login(request: Request, body: Credentials) -> Annotated[Reply, sessions.Account]:
    """Answer 200 with the account and a session's cookie; 401 where address or password is wrong, 429 too often."""
    check_origin(request)
    attempt = throttle.count(body.email, client_address(request))
    user = db.fetch_one(
        "SELECT id, password_hash FROM users WHERE lower(email) = lower(%(email)s)", {"email": body.email}
    )
    # Where there is nobody of that address the same is done, so that the time it takes does not tell.
    if not verify_password(body.password, user["password_hash"] if user else None) or user is None:
        raise _wrong()
    token = sessions.new_token()
    account = _begin(request, user, token, attempt)
    if needs_rehash(user["password_hash"]):
        db.execute(
            "UPDATE users SET password_hash = %(new)s WHERE id = %(id)s AND password_hash = %(password_hash)s",
            {**user, "new": hash_password(body.password)},
        )
    return Reply(account, headers=sessions.cookie(request, token))


@db.retry(idempotent=True)  # the token is the session's key
def _begin(
    tx: db.Transaction, request: Request, user: db.Row, token: str, attempt: throttle.Attempt
) -> sessions.Account:
    account = sessions.begin(tx, request, user_id=user["id"], password_hash=user["password_hash"], token=token)
    if account is None:  # it was changed in these milliseconds
        raise _wrong()
    attempt.forgive(tx)
    return account


def _wrong() -> Problem:
    return Problem(401, "The e-mail address or the password is wrong.", headers={"WWW-Authenticate": "Cookie"})


handler = lambda_handler(endpoint)

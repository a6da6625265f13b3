"""Change one's password."""

from dataclasses import dataclass
from typing import Annotated

from shared import db
from shared.web import Endpoint, Problem, Reply, Request, SignedIn, lambda_handler, sessions, throttle
from shared.web.auth import check_length, check_new_password, hash_password, verify_password
from shared.web.client_address import client_address

endpoint = Endpoint("/api/auth/password")


@dataclass
class PasswordChange:
    password: str
    new_password: str

    def __post_init__(self) -> None:
        check_length(self.password)


@endpoint.post
def change(request: Request, user: SignedIn, body: PasswordChange) -> Annotated[Reply, sessions.Account]:
    """Answer 200 with the account and a new session's cookie; every other session of the person ends."""
    if body.new_password == body.password:
        raise Problem(422, "new_password is the same as password.")
    check_new_password(body.new_password, user.email)
    attempt = throttle.count(user.email, client_address(request))
    old = db.fetch_value("SELECT password_hash FROM users WHERE id = %(id)s", {"id": user.id})
    if not verify_password(body.password, old):
        raise Problem(422, "password is not the present one.")
    token = sessions.new_token()
    account = _change(request, user.id, old, hash_password(body.new_password), token, attempt)
    return Reply(account, headers=sessions.cookie(request, token))


@db.retry()
def _change(
    tx: db.Transaction, request: Request, user_id: int, old: str, new: str, token: str, attempt: throttle.Attempt
) -> sessions.Account:
    tx.execute(
        """
        UPDATE users SET password_hash = %(new)s, must_change_password = false
        WHERE id = %(user_id)s AND password_hash = %(old)s
        """,
        {"user_id": user_id, "old": old, "new": new},
    )
    tx.execute("DELETE FROM sessions WHERE user_id = %(user_id)s", {"user_id": user_id})
    account = sessions.begin(tx, request, user_id=user_id, password_hash=new, token=token)
    if account is None:
        raise Problem(409, "The password was changed by somebody else at this moment.")
    attempt.forgive(tx)
    return account


handler = lambda_handler(endpoint)

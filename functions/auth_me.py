"""Say who is signed in."""

from shared.web import Endpoint, SignedIn, lambda_handler
from shared.web.sessions import Account

endpoint = Endpoint("/api/auth/me")


@endpoint.get
def me(user: SignedIn) -> Account:
    """Answer 200 with the account; also where an initial password has not been changed yet."""
    return user.account


handler = lambda_handler(endpoint)

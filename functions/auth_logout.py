"""Sign out."""

from shared.web import Endpoint, Reply, Request, lambda_handler, sessions
from shared.web.origin import check_origin

endpoint = Endpoint("/api/auth/logout")


@endpoint.post
def logout(request: Request) -> Reply:
    """Answer 204 and remove the session and its cookie; the same where there is none."""
    check_origin(request)
    sessions.end(request)
    return Reply(status=204, headers=sessions.no_cookie(request))


handler = lambda_handler(endpoint)

"""Where one is signed in, and signing out everywhere."""

from typing import TypedDict, cast

from shared import db
from shared.web import Endpoint, Reply, Request, SignedIn, User, lambda_handler, sessions

endpoint = Endpoint("/api/auth/sessions")


class Session(TypedDict):
    id: int
    ip_address: str | None
    user_agent: str | None
    created_at: str
    last_seen_at: str
    is_this: bool


@endpoint.get
def list_sessions(user: User) -> list[Session]:
    """Answer 200 with the person's sessions, the one last used first."""
    rows = db.fetch_all(
        """
        SELECT id, host(ip_address) AS ip_address, user_agent, created_at, last_seen_at,
               id = %(session_id)s AS is_this
        FROM sessions
        WHERE user_id = %(user_id)s AND expires_at > now() AND last_seen_at > now() - %(idle)s::interval
        ORDER BY last_seen_at DESC, id DESC LIMIT 100
        """,
        {"user_id": user.id, "session_id": user.session_id, "idle": sessions.IDLE},
    )
    return cast(list[Session], rows)


@endpoint.delete
def sign_out_everywhere(request: Request, user: SignedIn) -> Reply:
    """Answer 204 and end every session of the person, this one too."""
    db.execute("DELETE FROM sessions WHERE user_id = %(user_id)s", {"user_id": user.id})
    return Reply(status=204, headers=sessions.no_cookie(request))


handler = lambda_handler(endpoint)

"""Make the periodic check: for Vercel's cron, a schedule of EventBridge, or any other scheduler."""

from shared.health.watch import watch
from shared.settings import get_settings
from shared.web import Endpoint, Problem, Reply, Request, lambda_handler
from shared.web.operator_token import require_operator, require_token

endpoint = Endpoint("/api/watch")


@endpoint.get
def look(request: Request) -> Reply:
    """Answer 200 with what was done, 503 where a check fails; 401 without CRON_SECRET or the operator's token."""
    try:
        require_token(request, get_settings().cron_secret)
    except Problem:
        require_operator(request)
    done = watch().as_object()
    return Reply(done, status=503 if done["status"] == "fail" else 200)


handler = lambda_handler(endpoint, scheduled=lambda: watch().as_object())

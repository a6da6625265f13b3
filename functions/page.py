"""Show the operator the database: how it is, what to do, and what happened, on a page that keeps looking."""

from dataclasses import dataclass

from starlette.responses import Response

from shared.clock import timestamp
from shared.errors import ConfigurationError, Error
from shared.health.latest import latest_report
from shared.health.report import Report
from shared.page.document import POLICY, closed, dashboard, document, door, misconfigured
from shared.page.history import latest_history
from shared.page.migrations import last_migrations
from shared.settings import get_settings
from shared.web import Endpoint, Reply, Request, lambda_handler, operator_session
from shared.web.html import Markup
from shared.web.problem import problem_from

endpoint = Endpoint("/")


@dataclass
class Credentials:
    token: str


@endpoint.get
def page(request: Request) -> Response:
    """Answer 200 with the page, or with the form to sign in; 401 where ?content=1 asks and nobody is signed in.

    With ?content=1 it is what the page replaces itself with. 500 where the configuration is wrong.
    """
    is_part = request.query_params.get("content") == "1"
    try:
        token = get_settings().operator_token
        is_signed_in = operator_session.is_signed_in(request)
    except ConfigurationError as error:
        problem_from(error)  # which logs it
        return _html(misconfigured(), is_part=is_part, status=500)
    if not is_signed_in:
        comes_from_elsewhere = request.headers.get("sec-fetch-site") in ("cross-site", "same-site")
        content = door(may_be_signed_in=comes_from_elsewhere) if token is not None else closed()
        return _html(content, is_part=is_part, status=401 if is_part else 200)
    report = _report()
    is_up = report.error is None
    migrations = last_migrations() if is_up else None
    return _html(dashboard(report, latest_history(may_ask=is_up), migrations), is_part=is_part)


@endpoint.post
def sign_in(request: Request, body: Credentials) -> Reply:
    """Answer 204 with a cookie; 401 where the token is wrong or not set, 429 after too many attempts."""
    return Reply(status=204, headers=operator_session.sign_in(request, body.token))


@endpoint.delete
def sign_out(request: Request) -> Reply:
    """Answer 204 and remove the cookie; the same where there is none."""
    return Reply(status=204, headers=operator_session.sign_out(request))


def _report() -> Report:
    try:
        return latest_report()
    except Error as error:  # the one that somebody else asked for took too long
        return Report(timestamp(), (), error)


def _html(content: Markup, *, is_part: bool, status: int = 200) -> Response:
    headers = {"Content-Security-Policy": POLICY}
    if status == 401:
        headers["WWW-Authenticate"] = "Cookie"
    return Response(content.text if is_part else document(content), status, headers, media_type="text/html")


handler = lambda_handler(endpoint)

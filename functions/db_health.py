"""Show every check of the database to the operator.

In the shape of draft-inadarei-api-health-check, which monitors know; what a check found beside its value stands in
members of our own. Statements are shown without their literals; host, user and password are not in a report at all.
"""

from typing import Any

from starlette.responses import Response

from shared import __version__
from shared.health.latest import latest_report
from shared.health.report import Report
from shared.health.result import Result, Verdict
from shared.web import Endpoint, Request, lambda_handler
from shared.web.operator_token import require_operator
from shared.web.reply import encode

endpoint = Endpoint("/api/db/health")

_STATUS: dict[Verdict, str] = {"ok": "pass", "warn": "warn", "fail": "fail"}


@endpoint.get
def db_health(request: Request) -> Response:
    """Answer 200 where nothing fails, 503 where a check does; 401 without the operator's token."""
    require_operator(request)
    report = latest_report()
    code = 503 if report.status == "fail" else 200
    return Response(encode(_document(report)), code, media_type="application/health+json")


def _document(report: Report) -> dict[str, Any]:
    return {
        "status": _STATUS[report.status],
        "releaseId": __version__,
        "description": "health of the database",
        "checks": {f"{result.topic}:{result.name}": [_check(result, report.time)] for result in report.results},
    }


def _check(result: Result, time: str) -> dict[str, Any]:
    """Give one component; what could not be looked at has no status."""
    found = result.as_object()
    standard = {
        "componentType": "datastore",
        "observedValue": result.value,
        "observedUnit": result.unit,
        "status": _STATUS.get(result.verdict),
        "time": time,
        "output": None if result.verdict == "ok" else result.summary,
    }
    ours = {name: found[name] for name in ("title", "verdict", "summary", "threshold", "rows", "advice", "sql")}
    return {name: value for name, value in standard.items() if value is not None} | ours


handler = lambda_handler(endpoint)

"""The periodic check: look, keep a sample, end what may be ended, and tell people when a verdict changed.

`GET /api/watch`, a schedule of EventBridge, a long-lived server and `db watch` all call `watch()`. Of many that do at
the same time one looks: whoever first writes the minute's row into health_samples. No lock is held meanwhile, so it
works behind a pooler, and who is killed keeps nobody from looking in the next minute.
"""

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared import db, deadline
from shared.errors import Error
from shared.health.report import Report, make_report
from shared.health.result import Result, Verdict
from shared.settings import Settings, get_settings

log = logging.getLogger(__name__)

RETENTION = 30  # days that samples are kept
TIME_LIMIT = 25.0  # seconds for all of it: less than a function may run
WEBHOOK_TIMEOUT = 5.0  # seconds

# Sessions of others that must not be ended: they are meant to take long, or are not ours to judge.
_SPARED = ("pg_dump", "pg_restore", "pg_basebackup", "db migrate", "db backup")

_CLAIM = """
INSERT INTO health_samples (taken_at) VALUES (date_trunc('minute', now()))
ON CONFLICT (taken_at) DO NOTHING RETURNING taken_at
"""
_BEFORE = """
SELECT verdicts FROM health_samples WHERE taken_at < %(taken_at)s AND told ORDER BY taken_at DESC LIMIT 1
"""
_KEEP = """
UPDATE health_samples SET status = %(status)s, verdicts = %(verdicts)s::jsonb, numbers = %(numbers)s::jsonb,
  told = %(told)s
WHERE taken_at = %(taken_at)s
"""
_FORGET = "DELETE FROM health_samples WHERE taken_at < now() - make_interval(days => %(days)s)"
_SESSIONS = """
SELECT pid, application_name, {function}(pid) AS ended FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
  AND pg_has_role(usename, 'MEMBER') AND {state} AND now() - {since} > make_interval(secs => %(seconds)s)
  AND NOT EXISTS (SELECT FROM unnest(%(spared)s::text[]) AS name WHERE starts_with(application_name, name))
"""
_END_IDLE = _SESSIONS.format(
    function="pg_terminate_backend", state="starts_with(state, 'idle in transaction')", since="state_change"
)
_CANCEL = _SESSIONS.format(function="pg_cancel_backend", state="state = 'active'", since="query_start")

_last_told: dict[str, Verdict] = {}  # by this process, while no sample can be written


@dataclass(frozen=True)
class Watched:
    """What one look did. `report` is None where another instance had this minute's look."""

    report: Report | None
    changes: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    told: bool = True  # False: the webhook did not take the changes; the next look tells them again

    def as_object(self) -> dict[str, Any]:
        """Give it for JSON."""
        status = self.report.status if self.report else "skipped"
        return {"status": status, "changes": list(self.changes), "ended": list(self.ended), "told": self.told}


def watch() -> Watched:
    """Look once. Raises ConfigurationError; what the database does to it is part of the report."""
    settings = get_settings()
    with deadline.within(TIME_LIMIT):
        try:
            claimed = db.fetch_one(_CLAIM)
        except Error as error:
            log.error("watch: no sample can be kept: %s: %s", error.code, error.message)
            return _without_samples(settings)
        if claimed is None:
            return Watched(None)
        ended = _end(settings)
        report = make_report()
        return _keep(settings, claimed["taken_at"], report, ended)


def send(settings: Settings, title: str, lines: Sequence[str]) -> bool:
    """Post to ALERT_WEBHOOK_URL, in the shape that Slack and many others take; tell whether it was taken.

    Without a URL there is nobody to tell, and that is fine: the log has it.
    """
    if settings.alert_webhook_url is None:
        return True
    body = json.dumps({"text": "\n".join([title, *lines])}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(settings.alert_webhook_url, body, headers)  # noqa: S310 - settings allow http(s)
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT):  # noqa: S310
            return True
    except (OSError, ValueError) as error:
        status = error.code if isinstance(error, urllib.error.HTTPError) else type(error).__name__
        log.error("watch: the webhook did not take the alert: %s", status)  # its URL is a secret
        return False


def _keep(settings: Settings, taken_at: Any, report: Report, ended: tuple[str, ...]) -> Watched:
    row = db.fetch_one(_BEFORE, {"taken_at": taken_at})
    before: Mapping[str, Verdict] = row["verdicts"] if row else {}
    changes = _changes(before, report)
    told = _tell(settings, report, changes)
    numbers = {r.name: r.value for r in report.results if isinstance(r.value, int | float)}
    db.execute(
        _KEEP,
        {
            "taken_at": taken_at,
            "status": report.status,
            "verdicts": json.dumps(_verdicts(before, report)),
            "numbers": json.dumps(numbers),
            "told": told,
        },
    )
    db.execute(_FORGET, {"days": RETENTION})
    _last_told.clear()
    return Watched(report, changes, ended, told)


def _without_samples(settings: Settings) -> Watched:
    """Look all the same: a database that is full or down is what people most want to be told of."""
    report = make_report()
    changes = _changes(_last_told, report)
    told = _tell(settings, report, changes)
    if told:
        _last_told.update(_verdicts(_last_told, report))
    return Watched(report, changes, told=told)


def _changes(before: Mapping[str, Verdict], report: Report) -> tuple[str, ...]:
    """Say which verdicts are others than they were; a first look has only what is not well to tell."""
    return tuple(
        _sentence(before.get(result.name, "ok"), result)
        for result in report.results
        if result.verdict not in ("unknown", before.get(result.name, "ok"))
    )


def _verdicts(before: Mapping[str, Verdict], report: Report) -> dict[str, Verdict]:
    """Give each check's verdict to compare the next with: what could not be looked at is what it was."""
    return {
        result.name: before.get(result.name, "ok") if result.verdict == "unknown" else result.verdict
        for result in report.results
    }


def _sentence(before: Verdict, result: Result) -> str:
    words = f"{result.title}: {before} -> {result.verdict}. {result.summary}"
    return " ".join([words, *result.advice]) if result.verdict != "ok" else words


def _tell(settings: Settings, report: Report, changes: tuple[str, ...]) -> bool:
    if not changes:
        return True
    extra = {"status": report.status, "changes": list(changes)}
    log.log(logging.INFO if report.status == "ok" else logging.ERROR, "watch: verdicts changed", extra=extra)
    return send(settings, f"Database ({settings.environment}): {report.status}", changes)


def _end(settings: Settings) -> tuple[str, ...]:
    """End sessions and statements beyond the limits, where limits are set; only those of roles that are ours."""
    ended = []
    for seconds, sql, what in (
        (settings.watch_end_idle_in_transaction, _END_IDLE, "idle in transaction, ended"),
        (settings.watch_cancel_queries, _CANCEL, "a statement, cancelled"),
    ):
        if seconds is None:
            continue
        for row in db.fetch_all(sql, {"seconds": seconds, "spared": list(_SPARED)}):
            if row["ended"]:
                ended.append(f"pid {row['pid']} of {row['application_name'] or 'an unnamed program'}: {what}")
    for line in ended:
        log.warning("watch: %s", line)
    return tuple(ended)

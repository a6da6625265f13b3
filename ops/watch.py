"""`db watch`: the periodic check, from a terminal or a service manager."""

import json
import time
from typing import Annotated

import typer

from shared.clock import timestamp
from shared.errors import ConfigurationError, Unhealthy
from shared.health.watch import Watched, send, watch
from shared.settings import get_settings


def run(
    once: Annotated[
        bool, typer.Option("--once", help="Look once, for cron; exits with 5 where something fails.")
    ] = False,
    test_alert: Annotated[
        bool, typer.Option("--test-alert", help="Post a test to ALERT_WEBHOOK_URL, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object for each look.")] = False,
) -> None:
    """Look at the database every WATCH_INTERVAL seconds: keep a sample, end what may be ended, tell of changes."""
    settings = get_settings()
    if test_alert:
        _test_alert()
        return
    while True:
        done = watch()
        print(json.dumps(done.as_object()) if as_json else _line(done), flush=True)  # noqa: T201
        if once:
            if done.report is not None and done.report.status == "fail":
                raise typer.Exit(Unhealthy.exit_code)
            return
        time.sleep(settings.watch_interval or 300)


def _line(done: Watched) -> str:
    if done.report is None:
        return f"{timestamp()} another instance has looked in this minute"
    told = "" if done.told else "; the webhook did not take it, so the next look tells it again"
    return "\n  ".join([f"{timestamp()} {done.report.status}{told}", *done.changes, *done.ended])


def _test_alert() -> None:
    settings = get_settings()
    if settings.alert_webhook_url is None:
        raise ConfigurationError(
            "ALERT_WEBHOOK_URL is not set.", solutions=["Set it to the address that your chat gives for a webhook."]
        )
    if not send(settings, f"Database ({settings.environment}): this is a test of its alerts", []):
        raise Unhealthy(
            "The webhook did not take the test.",
            solutions=["The log line above says how it answered; compare the URL."],
        )
    print("Sent.")  # noqa: T201

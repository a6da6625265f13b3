"""The Lambda function `migrate`: for a database that only the VPC can reach.

It has no route. `ops/deploy_aws.py` calls it, with the new code, before anything else of a deploy is changed.
"""

import logging
from typing import Any

from migrations import runner
from migrations.failure import describe
from shared import log
from shared.errors import Error

_log = logging.getLogger(__name__)


def handler(event: Any, _context: object) -> dict[str, Any]:
    """Migrate where the event is {"command": "deploy"}; a test event from the console must not.

    Answers {"ok": true, "lines": [...]}, or {"ok": false, "error": text, "exit_code": number}. What it does not expect
    is raised, and becomes Lambda's FunctionError.
    """
    log.configure()
    logging.getLogger("migrations").setLevel(logging.INFO)
    if not isinstance(event, dict) or event.get("command") != "deploy":
        return {"ok": False, "error": 'The event must be {"command": "deploy"}.', "exit_code": 2, "lines": []}
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        _log.info("%s", line)

    try:
        runner.deploy(report=report)
    except Error as error:
        text = describe(error)
        _log.error("%s: %s", error.code, text)
        return {"ok": False, "error": text, "exit_code": error.exit_code, "lines": lines}
    return {"ok": True, "lines": lines}

"""Close the database connections when Lambda ends an instance, instead of leaving them to the server.

Lambda sends SIGTERM only where an extension is registered, from Python 3.12 on; otherwise the process is killed and
the server finds out by `idle_session_timeout`. So this registers one that does nothing: it takes part in no event, and
its thread waits for ever (Lambda developer guide, "Extensions API"). Off unless LAMBDA_CLOSE_ON_SIGTERM=true.
"""

import json
import logging
import os
import signal
import threading
from http.client import HTTPConnection
from typing import Any

from shared import db

_GRACE = 0.3  # seconds for a connection in use; Lambda kills 0.5 s after SIGTERM
_API = "/2020-01-01/extension"

log = logging.getLogger(__name__)


def close_connections_at_the_end() -> None:
    """Register the extension and take SIGTERM. Where that fails, the function works on without; the log says so."""
    # Workers that were forked from one runtime would all register under one name.
    if "AWS_LAMBDA_MAX_CONCURRENCY" in os.environ:
        return
    try:
        connection = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=1)
        connection.request(
            "POST",
            f"{_API}/register",
            json.dumps({"events": []}),
            {"Lambda-Extension-Name": "close-connections", "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ConnectionError(f"status {response.status}: {body[:200]!r}")
        identifier = response.headers["Lambda-Extension-Identifier"]
        signal.signal(signal.SIGTERM, _end)
    except (OSError, KeyError, ValueError) as error:
        log.warning("SIGTERM will not be received: the extension could not be registered: %s", error)
        return
    threading.Thread(target=_wait, args=(identifier,), name="extension", daemon=True).start()


def _wait(identifier: str) -> None:
    # Lambda counts the start as done once every extension has asked for its next event; none ever comes.
    connection = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        connection.request("GET", f"{_API}/event/next", headers={"Lambda-Extension-Identifier": identifier})
        connection.getresponse().read()
    except OSError:  # the instance ends
        pass


def _end(*_signal: Any) -> None:
    db.close_db(grace=_GRACE)
    # Not sys.exit: it would wait for the runtime's thread, which waits for the next invocation.
    os._exit(0)

"""A program: an instance of the app. It does what each line of standard input says, and answers with a line of JSON.

{"id": 1, "do": "ask", "with": [method, path, body]}     what `ask_here` tells; others may follow meanwhile
{"id": 2, "do": "fork", "with": [method, path, body]}    the same, in a child that is forked now
{"id": 3, "do": "set", "with": [seconds]}                its wall clock is so far ahead from now on
{"id": 4, "do": "leave", "with": []}                     how the pool was left; its connections are closed
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

_wall_clock = time.time
_ahead = 0.0
time.time = lambda: _wall_clock() + _ahead  # before others take it: the pool does when it is imported

from shared import db  # noqa: E402
from tests.faults.activities import ask_here  # noqa: E402

_writing = threading.Lock()


def ask(*request: Any) -> Any:
    """Send a request to the app."""
    return asdict(ask_here(*request))


def fork(*request: Any) -> Any:
    """Send a request to the app in a forked child, and wait for the child."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(target, json.dumps(_done(ask, request)).encode())
        db.close_db()
        os._exit(0)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    return answer


def set_clock(seconds: float) -> Any:
    """Set the wall clock ahead, or back."""
    global _ahead
    _ahead = seconds
    return {"result": None}


def leave() -> Any:
    """Close the connections; give what the pool was like."""
    statistics = db.get_pool().statistics()
    db.close_db()
    return {"result": statistics}


COMMANDS: dict[str, Callable[..., Any]] = {"fork": fork, "set": set_clock, "leave": leave}


def _done(function: Any, arguments: Any) -> Any:
    try:
        return {"result": function(*arguments)}
    except BaseException:
        return {"failure": traceback.format_exc()}


def _answer(number: int, answer: Any) -> None:
    with _writing:
        print(json.dumps({"id": number, **answer}), flush=True)  # noqa: T201 - the answer


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        command = json.loads(line)
        number, arguments = command["id"], command["with"]
        if command["do"] == "ask":
            work = lambda number=number, arguments=arguments: _answer(number, _done(ask, arguments))  # noqa: E731
            threading.Thread(target=work, daemon=True).start()
        else:  # in the main thread, from which a program forks
            _answer(number, COMMANDS[command["do"]](*arguments))


if __name__ == "__main__":
    main()

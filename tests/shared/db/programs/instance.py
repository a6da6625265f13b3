"""A serverless instance: it does what each line of its standard input says, and answers each with a line of JSON."""

import json
import sys
import threading
from contextlib import nullcontext
from typing import Any

from shared import db, deadline
from shared.errors import Error


def fetch(sql: Any) -> Any:
    """Give the first value of a statement."""
    return db.fetch_value(sql)


def spread(count: int) -> list[int]:
    """Hold `count` connections at once, and give the process ids of their backends."""
    pids: list[int] = []
    barrier = threading.Barrier(count)

    def hold() -> None:
        with db.transaction() as tx:
            pids.append(tx.fetch_value("SELECT pg_backend_pid()"))
            barrier.wait()

    threads = [threading.Thread(target=hold) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pids


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        command = json.loads(line)
        seconds = command.get("deadline")
        try:
            with nullcontext() if seconds is None else deadline.within(seconds):
                answer = {"result": (fetch if command["do"] == "fetch" else spread)(command["with"])}
        except Error as error:
            answer = {"error": error.code, "message": error.message}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
    db.close_db()


if __name__ == "__main__":
    main()

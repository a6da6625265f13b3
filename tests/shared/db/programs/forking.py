"""A process that uses the database and forks; the argument says how. It prints what both halves saw, as JSON."""

import contextlib
import json
import multiprocessing
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

from shared import db
from shared.errors import DatabaseUnavailable

PID = "SELECT pg_backend_pid()"
WAIT = 10.0  # seconds for a child to answer


def forked(work: Callable[[], Any]) -> Any:
    """Do some work in a forked child, and return what it gives; None where it does not end."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(target, json.dumps(work()).encode())
        os._exit(0)
    os.close(target)
    try:
        if not select.select([source], [], [], WAIT)[0]:
            os.kill(child, 9)
            return None
        return json.loads(os.read(source, 10_000))
    finally:
        os.waitpid(child, 0)


def read(_: object = None) -> Any:
    """Give the backend that serves, and what the pool did for it."""
    return [db.fetch_value(PID), db.get_pool().statistics()["opened"]]


def with_an_idle_connection() -> Any:
    parent = db.fetch_value(PID)
    child = forked(read)
    return {"parent": parent, "child": child, "afterwards": db.fetch_value(PID)}


def with_the_lock_held() -> Any:
    parent = db.fetch_value(PID)
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with db.get_pool()._lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = forked(read)
    over.set()
    thread.join()
    return {"parent": parent, "child": child, "afterwards": db.fetch_value(PID)}


def in_a_transaction() -> Any:
    with db.get_pool().lease() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE t (n int)")
        lease = db.get_pool().lease()

        def work() -> Any:
            lease.release()  # as the child's garbage collector would
            with contextlib.suppress(DatabaseUnavailable):
                connection.execute("ROLLBACK")  # as leaving the block does
            return read()

        parent = connection.fetch(PID)[0]["pg_backend_pid"]
        child = forked(work)
        connection.execute("COMMIT")
    lease.release()
    assert db.fetch_value("SELECT count(*) FROM t") == 0
    return {"parent": parent, "child": child, "afterwards": parent if db.fetch_value(PID) else None}


def by_multiprocessing() -> Any:
    parent = db.fetch_value(PID)
    with multiprocessing.get_context("fork").Pool(3) as workers:
        children = workers.map(read, range(3), chunksize=1)
    return {"parent": parent, "child": children[0], "afterwards": db.fetch_value(PID)}


if __name__ == "__main__":
    seen = globals()[sys.argv[1]]()
    seen["statistics"] = db.get_pool().statistics()
    db.close_db()
    print(json.dumps(seen))  # noqa: T201 - the answer

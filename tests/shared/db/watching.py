"""Wait for what the server shows, instead of sleeping: who is connected, and what they do."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tests.servers.postgres import Postgres

T = TypeVar("T")


class Session(NamedTuple):
    """A row of pg_stat_activity."""

    pid: int
    state: str | None
    wait_event: str | None
    application_name: str
    query: str


def until(condition: Callable[[], T], timeout: float = 10.0) -> T:
    """Ask again and again until the answer is true, and return it. Raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {condition}"
        time.sleep(0.01)  # what is watched offers no event


def name_of(database: str) -> str:
    """Return the database's name in a URL."""
    return database.partition("?")[0].rpartition("/")[2]


def sessions(postgres: Postgres, database: str) -> list[Session]:
    """Return who is connected to the database of this URL."""
    query = """
        SELECT pid, state, wait_event, application_name, query FROM pg_stat_activity
        WHERE datname = %s AND backend_type = 'client backend' ORDER BY backend_start
    """
    rows: list[tuple[Any, ...]] = postgres.admin().execute(query, [name_of(database)]).fetchall()
    return [Session(*row) for row in rows]


def running(postgres: Postgres, database: str, text: str) -> list[Session]:
    """Return the sessions that are at work on a statement with this text in it."""
    return [row for row in sessions(postgres, database) if row.state == "active" and text in row.query]


def terminate(postgres: Postgres, *pids: int) -> None:
    """End backends, and return once they are gone."""
    for pid in pids:
        postgres.admin().execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

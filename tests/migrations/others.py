"""What other sessions do while a migration runs, and a migration that runs beside the test."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg

from migrations import engine, files, ledger, lock
from migrations.connection import connect
from migrations.progress import Progress

WAIT = 20.0  # seconds in which others are expected to get somewhere


def until(condition: Callable[[], object], what: str, *, seconds: float = WAIT) -> None:
    """Wait for something that other sessions do and nobody announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)


def until_line(process: "subprocess.Popen[str]", beginning: str) -> str:
    """Read what a process prints up to a line that begins so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    raise AssertionError(f"it ended without saying {beginning!r}")


class Run:
    """A call in a thread of its own; `end` gives what it returned or raises what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> Any:
        self._thread.join(WAIT)
        assert not self.is_running, "it does not end"
        if self._error is not None:
            raise self._error
        return self._result


def upgrade(directory: Path, report: Callable[[str], None], *, wait: float = lock.WAIT) -> Progress:
    """Apply what is pending as a deploy does, without what comes before and after."""
    progress = Progress(report, "Applied")
    with connect() as guard:
        ledger.prepare(guard)
        head = files.scan(directory)[-1].revision
        engine.run("upgrade", head, directory, guard=guard, progress=progress, report=report, wait=wait)
    return progress


@contextmanager
def transaction(url: str, *statements: str, application_name: str = "") -> Iterator[psycopg.Connection[Any]]:
    """Keep a transaction open that has run these statements; commit it at the end."""
    with psycopg.connect(url, application_name=application_name) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection


@contextmanager
def looking(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection in autocommit mode to look at the others with."""
    with psycopg.connect(url, autocommit=True, application_name="looking") as connection:
        yield connection


def is_waiting(connection: psycopg.Connection[Any], mode: str = "AccessExclusiveLock") -> bool:
    """Tell whether somebody waits for a lock of this mode in this database."""
    query = """
        SELECT FROM pg_locks WHERE NOT granted AND mode = %s
        AND (database IS NULL OR database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    """
    return connection.execute(query, [mode]).fetchone() is not None

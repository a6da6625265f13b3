"""What the statement under way is doing, told by the server to another session: waiting for whom, building how far."""

import time
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any

import psycopg

from migrations import contention
from migrations.connection import Connection
from migrations.contention import Contention
from migrations.progress import Progress, Report

EVERY = 5.0  # seconds between two lines on the same phase

# pg_blocking_pids stops the lock manager for a moment, so it is asked only about a session that waits (manual, 9.27.1).
_BLOCKING = """
SELECT DISTINCT blocking FROM pg_stat_activity, unnest(pg_blocking_pids(pid)) AS blocking
WHERE pid = %(pid)s AND wait_event_type = 'Lock'
"""
_BUILD = """
SELECT coalesce(relname, 'an index'), phase, lockers_done, lockers_total,
       CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,
       CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END
FROM pg_stat_progress_create_index LEFT JOIN pg_class c ON c.oid = index_relid
WHERE pid = %(pid)s
"""


class Watcher:
    """Look every `interval` seconds, in a thread of its own, at the session `progress.backend_pid`.

    `observer` is another session, in autocommit mode; it may be used by others meanwhile. Ends quietly when it is lost.
    """

    def __init__(
        self, observer: Connection, progress: Progress, contention: Contention, report: Report, *, interval: float
    ) -> None:
        self._observer = observer
        self._progress = progress
        self._contention = contention
        self._report = report
        self._interval = interval
        self._stop = Event()
        self._thread = Thread(target=self._run, name="migrations watcher", daemon=True)
        self._announced: set[tuple[int, str]] = set()
        self._told: tuple[str, str, str] = ("", "", "")
        self._told_at = 0.0

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(psycopg.Error):  # the lock is lost, too: who releases it says so
            while not self._stop.wait(self._interval):
                if (pid := self._progress.backend_pid) is not None:
                    self.look(pid)

    def look(self, pid: int) -> None:
        """Note and report who blocks this session, and how far its index is."""
        blocking = [int(row[0]) for row in self._ask(_BLOCKING, pid)]
        if blockers := contention.describe(self._observer, blocking):
            self._contention.blockers = blockers
        for blocker in blockers:
            if (known := (blocker.pid, blocker.transaction)) not in self._announced:
                self._announced.add(known)
                self._report(f"Waiting for a lock held by {blocker}. {blocker.advice}")
        for index, phase, lockers_done, lockers_total, done, total in self._ask(_BUILD, pid):
            if lockers_total:
                self._tell(index, phase, f"{lockers_done} of {lockers_total} transactions have ended")
            else:
                self._tell(index, phase, f"{100 * done // total} %" if total else "")

    def _tell(self, index: str, phase: str, much: str) -> None:
        now, news = time.monotonic(), (index, phase, much)
        is_due = now - self._told_at >= EVERY or news[:2] != self._told[:2]
        if is_due and news != self._told:
            self._told, self._told_at = news, now
            self._report(f"Building {index}: {phase}" + (f", {much}" if much else ""))

    def _ask(self, query: str, pid: int) -> list[Any]:
        return self._observer.execute(query.encode(), {"pid": pid}).fetchall()

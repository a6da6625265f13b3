"""What to do when a table is locked by somebody else: step back, wait without queueing, try again.

A statement that waits for ACCESS EXCLUSIVE stops everybody who comes after it, readers too. So it waits for
lock_timeout only; then its transaction is rolled back, and the site goes on while we look from the guard connection
whether those who blocked us are done.
"""

import random
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from migrations.connection import Connection
from migrations.progress import Report
from shared.errors import Error, LockTimeout

# lock_not_available and deadlock_detected: the transaction is rolled back, and may succeed when run again.
RETRYABLE = {"55P03", "40P01"}
# Seconds without a try, while the same sessions go on blocking: at first, and at last.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0

# pg_locks shows everybody's virtual transaction, also where pg_stat_activity hides the rest.
_DESCRIBE = """
SELECT pid, virtualtransaction, coalesce(application_name, ''), coalesce(state, backend_type, ''),
       extract(epoch FROM clock_timestamp() - coalesce(xact_start, backend_start))::float8, coalesce(query, '')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'virtualxid' AND granted AND mode = 'ExclusiveLock' AND pid = ANY (%(pids)s)
"""
_IN_TRANSACTION = """
SELECT pid, virtualtransaction FROM pg_locks WHERE locktype = 'virtualxid' AND granted AND pid = ANY (%(pids)s)
"""
_DUMPS = """
SELECT DISTINCT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'relation' AND granted AND datname = current_database() AND application_name LIKE 'pg\\_dump%'
"""
_CONSTANT = re.compile(r"'(?:[^']|'')*(?:'|$)")


class Blocker(NamedTuple):
    """A transaction that holds a lock, or is ahead of us in the queue for it."""

    pid: int
    transaction: str  # virtual id: tells this transaction of the session from its next one
    application: str
    state: str
    seconds: float | None  # since its transaction began; None where the server does not tell us
    query: str

    @classmethod
    def prepared(cls) -> "Blocker":
        """Give what stands for a transaction that was prepared (two-phase commit): it has no session."""
        return cls(0, "", "", "", None, "")

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction"
        who = f"pid {self.pid} ({self.application or 'no application name'}"
        if self.seconds is None:  # of another user: pg_read_all_stats would show more
            return f"{who}, of another user)"
        return f"{who}, {self.state}, its transaction began {self.seconds:.0f} s ago, query: {self.statement})"

    @property
    def statement(self) -> str:
        """Give its query on one line, cut, and without constants: a build log must not hold people's data."""
        flat = _CONSTANT.sub("'…'", " ".join(self.query.split()))
        return flat if len(flat) <= 200 else flat[:199] + "…"

    @property
    def advice(self) -> str:
        """Give the statement that ends it."""
        if self.pid == 0:
            return "SELECT gid, prepared, owner FROM pg_prepared_xacts; names it, ROLLBACK PREPARED 'gid'; ends it."
        return f"If it hangs, this ends it: SELECT pg_terminate_backend({self.pid});"


def describe(observer: Connection, pids: Collection[int]) -> list[Blocker]:
    """Say who these sessions are, as far as they are in a transaction; 0 stands for a prepared one."""
    rows = observer.execute(_DESCRIBE, {"pids": list(pids)}).fetchall() if pids else []
    prepared = [Blocker.prepared()] if 0 in pids else []
    return prepared + [Blocker(*row) for row in rows]  # type: ignore[arg-type]


@contextmanager
def patience(connection: Connection) -> Iterator[None]:
    """Lift lock_timeout, outside a transaction, for what nobody queues behind (`kinds.waits_unnoticed`)."""
    row = connection.execute(
        "SELECT current_setting('lock_timeout'), set_config('lock_timeout', '0', false)"
    ).fetchone()
    assert row is not None
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [row[0]])


class Contention:
    """Wait for other people's locks, up to `wait` seconds in all; `observer` is a connection that holds none of ours.

    The watcher notes in `blockers` who is in the way of the statement under way.
    """

    def __init__(
        self, observer: Connection, report: Report, *, wait: float, lock_timeout: float, interval: float
    ) -> None:
        self._observer = observer
        self._report = report
        self._wait = wait
        self._left = wait
        self._lock_timeout = lock_timeout
        self._interval = interval
        self._pause = FIRST_PAUSE
        self.blockers: list[Blocker] = []

    def await_dumps(self) -> None:
        """Wait until no pg_dump holds locks. Raises LockTimeout.

        It holds ACCESS SHARE on every table to its end: whatever we tried would stop the site for each try.
        """
        dumps = [int(str(row[0])) for row in self._observer.execute(_DUMPS).fetchall()]
        if not (running := describe(self._observer, dumps)):
            return
        self._report(f"Waiting for a backup that is running: {_names(running)}.")
        self._await_end(running, self._left, at_least=0.0)
        if running := self._still(running):
            raise LockTimeout(
                f"A backup is running: {_names(running)}. Waited {self._wait:g} s for it. Nothing was tried, so that "
                "nobody had to queue behind us.",
                solutions=["Run this again when it is done.", *(blocker.advice for blocker in running)],
            )

    def pause(self, error: Error, *pids: int) -> None:
        """Wait after a try that failed with `error` until another one makes sense.

        That is when those who blocked it are gone (`pids`, where the watcher did not see them), or a jittered pause is
        over. Raises LockTimeout, which says what `error` said and who blocked, when there is no time left.
        """
        blockers, self.blockers = self.blockers or describe(self._observer, pids), []
        # Seconds that others may have waited behind us.
        queued = self._lock_timeout if error.sqlstate == "55P03" else 0.0
        self._left -= queued
        if self._left > 0:
            self._report(
                f"{_briefly(error)}. Blocked by {_names(blockers)}. Nobody waits behind us now; "
                "trying again when it is free."
            )
            jitter = random.uniform(0.5, 1)  # noqa: S311
            self._await_end(blockers, max(self._pause, queued) * jitter, at_least=queued * jitter / 2)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self._left <= 0:
            raise LockTimeout(
                f"{error.message}\nBlocked by {_names(blockers)}. Waited {self._wait:g} s in all.",
                solutions=["Run this again when it is done.", *(blocker.advice for blocker in blockers)],
            )

    def _await_end(self, blockers: list[Blocker], seconds: float, *, at_least: float) -> None:
        began = time.monotonic()
        seconds = min(seconds, self._left)
        while (passed := time.monotonic() - began) < seconds:
            # Those who queued behind us get their turn first.
            if passed >= at_least and blockers and not self._still(blockers):
                break
            time.sleep(min(self._interval, seconds - passed))
        self._left -= time.monotonic() - began

    def _still(self, blockers: list[Blocker]) -> list[Blocker]:
        rows = self._observer.execute(_IN_TRANSACTION, {"pids": [blocker.pid for blocker in blockers]}).fetchall()
        return [blocker for blocker in blockers if blocker.pid == 0 or (blocker.pid, blocker.transaction) in rows]


def _names(blockers: list[Blocker]) -> str:
    return "; ".join(map(str, blockers)) or "a session that was gone before it could be seen"


def _briefly(error: Error) -> str:
    """Give the beginning and the end of a message, what and why, without the state that is to pass."""
    if "\n" not in error.message:
        return error.message.removesuffix(".")
    what, why = error.message.partition(". ")[0], error.message.rpartition("\n")[2]
    return f"{what}: {why.removeprefix('Server: ').removesuffix('.')}"

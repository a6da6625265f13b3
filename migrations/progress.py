"""Which revision is under way and how far, and one line for each that is done."""

import time
from collections.abc import Callable

from migrations.files import Migration
from migrations.statements import Statement

Report = Callable[[str], None]


class Progress:
    """Follow a run. A revision counts as done when the next one begins or the run ends: it is committed by then."""

    def __init__(self, report: Report, verb: str) -> None:
        self.report = report
        self._verb = verb
        self._started = 0.0
        self.current: Migration | None = None
        self.done: list[Migration] = []
        self.statement: Statement | None = None
        # How many statements of a file outside a transaction have taken effect, in this run and those before.
        self.statements_done = 0
        # Whether all statements have run: what is left is to record the revision, and COMMIT.
        self.is_ending = False
        # The session that migrates, for the watcher; None where there is none.
        self.backend_pid: int | None = None
        # What stopped it. Cleaning up on a broken connection raises errors of its own, which would hide this one.
        self.failure: BaseException | None = None

    def begin(self, migration: Migration, backend_pid: int) -> None:
        """Note that this revision starts, or starts again, in this session."""
        self.backend_pid = backend_pid
        self.is_ending = False
        if self.current is not None and self.current.revision == migration.revision:
            return
        self.finish()
        self.current, self.statement = migration, None
        self.statements_done = 0
        self._started = time.monotonic()

    def step_back(self) -> None:
        """Note that the try is over and another one follows: its session is gone, and what failed does not count."""
        self.backend_pid = None
        self.failure = None

    def finish(self) -> None:
        """Report the revision under way as done."""
        if self.current is not None:
            self.report(f"{self._verb} {self.current.name} in {self.elapsed_ms} ms")
            self.done.append(self.current)
            self.current = None

    @property
    def elapsed_ms(self) -> int:
        """Give the milliseconds since the revision under way began, waiting included."""
        return round(1000 * (time.monotonic() - self._started))

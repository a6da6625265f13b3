"""Which revision is under way, and one line for each that is done."""

import time
from collections.abc import Callable

from migrations.files import Migration


class Progress:
    """Follow a run. A revision counts as done when the next one begins or the run ends: it is committed by then."""

    def __init__(self, report: Callable[[str], None], verb: str) -> None:
        self._report = report
        self._verb = verb
        self._started = 0.0
        self.current: Migration | None = None
        self.done: list[Migration] = []
        # What stopped it. Cleaning up on a broken connection raises errors of its own, which would hide this one.
        self.failure: BaseException | None = None

    def begin(self, migration: Migration) -> None:
        """Note that this revision starts."""
        self.finish()
        self.current = migration
        self._started = time.monotonic()

    def finish(self) -> None:
        """Report the revision under way as done."""
        if self.current is not None:
            self._report(f"{self._verb} {self.current.name} in {1000 * (time.monotonic() - self._started):.0f} ms")
            self.done.append(self.current)
            self.current = None

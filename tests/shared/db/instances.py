"""A serverless instance as a process of its own, which a test can freeze and thaw as a platform does."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.process import freeze, thaw

ROOT = Path(__file__).resolve().parents[3]
WAIT = 30.0  # seconds for an answer, far beyond what any should take


class Instance:
    """A running tests/shared/db/programs/instance.py. An answer is {"result": ...} or {"error": code, ...}."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def tell(self, do: str, what: Any, deadline: float | None = None) -> None:
        """Give it something to do: "fetch" an SQL statement's value, or "spread" over a number of connections."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "with": what, "deadline": deadline}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for its next answer."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT)
        assert ready, f"no answer within {WAIT:g} s"
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def ask(self, do: str, what: Any, deadline: float | None = None) -> dict[str, Any]:
        """Have it do something and return its answer."""
        self.tell(do, what, deadline)
        return self.answer()

    def freeze(self) -> None:
        """Stop the process, and return once it stands still."""
        freeze(self.process)

    def thaw(self) -> None:
        """Let it go on."""
        thaw(self.process)


@contextmanager
def instance(url: str, **variables: str) -> Iterator[Instance]:
    """Run an instance on a database, on Vercel unless the variables say otherwise."""
    environ = {**os.environ, "APP_ENV": "test", "VERCEL": "1", "DATABASE_URL": url, **variables}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.shared.db.programs.instance"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environ,
    ) as process:
        running = Instance(process)
        try:
            yield running
        finally:
            running.thaw()
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                process.kill()

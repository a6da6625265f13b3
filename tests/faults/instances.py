"""The app in a process of its own, which a test can freeze, kill, fork, and give another clock or other names."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.activities import PATIENCE, Told
from tests.servers.process import thaw

ROOT = Path(__file__).resolve().parents[2]
NO_ANSWER = "no answer"  # the process that was asked is gone
NOTHING_LEFT = {"in_use": 0, "waiting": 0}


def forgets(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Tell whether a process has no handler for a signal, or is gone (proc_pid_status(5), SigCgt)."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    except FileNotFoundError:
        return True
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return not int(caught, 16) >> (number - 1) & 1


class Instance:
    """A running tests/faults/instance.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._is_gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, method: str, path: str, body: Any) -> Told:
        """Send a request to its app."""
        return self._told("ask", method, path, body)

    def fork(self, method: str, path: str, body: Any) -> Told:
        """Have it fork; send a request to the app in the child."""
        return self._told("fork", method, path, body)

    def set_clock(self, seconds: float) -> None:
        """Set its wall clock so far ahead of this machine's; the monotonic one goes on as before."""
        self._do("set", seconds)

    def leave(self) -> dict[str, int]:
        """Have it close its connections; give what its pool was like."""
        answer = self._do("leave")
        statistics: dict[str, int] = NOTHING_LEFT if answer is None else answer["result"]
        return statistics

    def _told(self, do: str, *request: Any) -> Told:
        begun = time.monotonic()
        answer = self._do(do, *request)
        if answer is None:
            return Told(NO_ANSWER, time.monotonic() - begun)
        assert "failure" not in answer, answer["failure"]
        return Told(**answer["result"])

    def _do(self, do: str, *arguments: Any) -> Any:
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            if self._is_gone:
                future.set_result(None)
        assert self.process.stdin is not None
        if not future.done():
            self.process.stdin.write(json.dumps({"id": number, "do": do, "with": arguments}) + "\n")
            self.process.stdin.flush()
        return future.result(PATIENCE)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer)
        with self._lock:
            self._is_gone = True
            for future in self._waiting.values():
                future.set_result(None)

    def end(self) -> None:
        """Let it end; kill it where it does not."""
        assert self.process.stdin is not None
        thaw(self.process)
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join()


@contextmanager
def instance(variables: Mapping[str, str]) -> Iterator[Instance]:
    """Run an instance of a serverless platform with these variables."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.instance"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "VERCEL": "1", **variables},
    ) as process:
        running = Instance(process)
        try:
            yield running
        finally:
            running.end()

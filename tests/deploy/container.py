"""A command of the image, run as process 1 of a process namespace of its own: as a container runs it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from ops.processes import die_with_parent

PATIENCE = 20.0  # seconds after which a test fails rather than waits on
READY = "Uvicorn running on"
DRAINING = "Waiting for connections to close"  # uvicorn says so when it takes no new ones


@cache
def namespace() -> tuple[str, ...]:
    """Give the words before a command that make it process 1; none where this machine does not allow it."""
    for user in ((), ("--user", "--map-root-user")):
        words = ("unshare", *user, "--pid", "--fork", "--kill-child=KILL")
        if (
            shutil.which("unshare")
            and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
        ):
            return words
    return ()


# uvicorn ends by the signal that it got, once all is done. Process 1 cannot, and so ends well.
STOPPED = 0 if namespace() else -signal.SIGTERM


class Container:
    """A running command: its output line by line, signals, and its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.output = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        """Return when it has said so in all; what it said is in `output`.

        Raises AssertionError where it ends before, or has to be killed because it says nothing of the kind.
        """
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        try:
            while self.output.count(text) < times:
                line = self._process.stdout.readline()
                assert line, f"it ended without {text!r}:\n{self.output}"
                self.output += line
        finally:
            watchdog.cancel()

    def terminate(self, *, everybody: bool = False) -> None:
        """Send it SIGTERM, as `docker stop` does; or all its processes, as systemd does unless told otherwise."""
        process = psutil.Process(self._process.pid)
        first = process.children()[0] if namespace() else process
        for each in [first, *(first.children(recursive=True) if everybody else [])]:
            each.terminate()

    def wait(self) -> int:
        """Wait for its end and give the exit code."""
        self.output += self._process.communicate(timeout=PATIENCE)[0]
        return self._process.returncode


@contextmanager
def running(command: Sequence[str], environ: Mapping[str, str], directory: Path) -> Iterator[Container]:
    """Run a command of the image in its directory; kill it at the end of the block, if it has not ended."""
    program = shutil.which(command[0], path=environ["PATH"])
    assert program is not None, f"{command[0]} is not in the image"
    with subprocess.Popen(
        [*namespace(), program, *command[1:]],
        cwd=directory,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent,
    ) as process:
        try:
            yield Container(process)
        finally:
            process.kill()

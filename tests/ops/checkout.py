"""A copy of this checkout in a folder with a space in its name, and `db` run in it as a person would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ops.embedded import ROOT, EmbeddedServer
from tests.servers.process import free_port

COPIED = ("app.py", "functions", "shared", "migrations", "ops", "Makefile", "pyproject.toml", "README.md")
TIMEOUT = 60.0  # seconds for whatever is waited for; never reached where all is well
_DB = "from ops.cli import main; main()"


class Checkout:
    """The copy. Its embedded server prefers a port of its own, so that no other test is in its way."""

    def __init__(self, root: Path, *, python: Sequence[str] = (sys.executable,), **popen: Any) -> None:
        self.root = root
        self.postgres_port = free_port()
        self._python = python
        self._popen = popen
        root.mkdir()
        for name in (*COPIED, *(path.name for path in ROOT.glob("requirements*.txt"))):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, root / name)

    @property
    def embedded(self) -> EmbeddedServer:
        return EmbeddedServer(self.root)

    @property
    def url(self) -> str:
        """The URL of the running embedded server."""
        running = self.embedded.find()
        assert running is not None
        return running.url.render(password=True)

    def environ(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "POSTGRES_PORT": str(self.postgres_port), "PYTHONUNBUFFERED": "1", **variables}

    def db(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run `db` and return what it printed; another exit code than `code` fails the test."""
        done = subprocess.run(
            [*self._python, "-c", _DB, *arguments],
            cwd=self.root,
            env=self.environ(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
            **self._popen,
        )
        output: str = done.stdout
        assert done.returncode == code, output
        return output

    @contextmanager
    def dev(self, *arguments: str, **variables: str) -> Iterator[Dev]:
        """Run `db dev` on a free port until the block ends."""
        port = free_port()
        with subprocess.Popen(
            [*self._python, "-c", _DB, "dev", "--port", str(port), *arguments],
            cwd=self.root,
            env=self.environ(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **self._popen,
        ) as process:
            dev = Dev(process, port)
            try:
                yield dev
            finally:
                if process.poll() is None:
                    dev.end(signal.SIGTERM)


class Dev:
    """A running `db dev` and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self._lines: list[str] = []
        self._changed = threading.Condition()
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str, *, times: int = 1) -> None:
        """Wait until `text` was printed."""
        with self._changed:
            printed = self._changed.wait_for(
                lambda: self.output.count(text) >= times or not self._reader.is_alive(), TIMEOUT
            )
        assert printed, f"no {text!r} in:\n{self.output}"
        assert self.output.count(text) >= times, f"ended without {text!r}:\n{self.output}"

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        if number is not signal.SIGKILL:
            self._reader.join(TIMEOUT)
        return code

    def url(self, path: str) -> str:
        return f"http://localhost:{self.port}{path}"

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextmanager
def entered_by_all() -> Iterator[Path]:
    """Make a folder, with a space in its path, that every user may enter: pytest's own are for one user."""
    path = Path(tempfile.mkdtemp(prefix="check out "))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, where nothing announces it."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)

"""AWS's Runtime Interface Emulator around a handler: it ends a function that takes too long, and starts it anew."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.aws.bundle import Bundle, python_packages
from tests.deploy.aws.instance import environment
from tests.servers.process import free_port
from tests.shared.db.watching import until

_PATH = "/2015-03-31/functions/function/invocations"


@dataclass(frozen=True)
class Emulator:
    """A running emulator."""

    port: int
    log_file: Path

    def invoke(self, event: Any) -> Any:
        """Send an event and return what comes back: an answer, an error as JSON, or the emulator's own words."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{_PATH}", json.dumps(event).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:  # the function did not start
            text = error.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    @property
    def log(self) -> str:
        """What it and the function wrote."""
        return self.log_file.read_text("utf-8", "replace")


def program() -> Path:
    """Return the emulator's binary. Raises tools.Missing."""
    packages = python_packages("aws-emulator", "requirements-emulator.txt")
    machine = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    return packages / "samcli" / "local" / "rapid" / f"aws-lambda-rie-{machine}"


@contextmanager
def running(
    bundle: Bundle, task_root: Path, handler: str, variables: Mapping[str, str], folder: Path, *, timeout: int = 28
) -> Iterator[Emulator]:
    """Run a handler, which is written as in serverless.yml, for `timeout` seconds an event at most."""
    folder.mkdir()
    binary = folder / "emulator"
    shutil.copy(program(), binary)
    binary.chmod(0o755)
    port, runtime_port = free_port(), free_port()
    environ = {**environment(task_root, variables), "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(binary),
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{port}",
                "--runtime-api-address",
                f"127.0.0.1:{runtime_port}",
                str(bundle.python),
                "-S",
                "-m",
                "awslambdaric",
                handler,
            ],
            cwd=task_root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: _listens(port) or process.poll() is not None)
        yield Emulator(port, folder / "log")
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the function too
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

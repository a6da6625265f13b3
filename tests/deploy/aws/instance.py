"""A Lambda instance: awslambdaric, Lambda's own client, runs a handler out of the unpacked zip."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.deploy import tools
from tests.deploy.aws import runtime_api
from tests.deploy.aws.bundle import Bundle, python_packages, runtime_version
from tests.deploy.aws.runtime_api import RuntimeAPI


@dataclass(frozen=True)
class Instance:
    """A running instance; `api` sends it events."""

    api: RuntimeAPI
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        """What it wrote, all of it."""
        return self.log_file.read_text("utf-8", "replace")

    def workers(self) -> list[psutil.Process]:
        """Return the processes that were forked."""
        return psutil.Process(self.process.pid).children()


def client() -> Path:
    """Return the folder of awslambdaric for Lambda's Python, and nothing else. Raises tools.Missing."""
    return python_packages("awslambdaric", "requirements-runtime.txt")


def environment(task_root: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Lambda sets, and the function's own."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": str(client()),
        "LAMBDA_TASK_ROOT": str(task_root),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{runtime_version()}",
        "AWS_LAMBDA_FUNCTION_NAME": "serverless-postgres-production-x",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_REGION": "us-east-1",
        **variables,
    }


@contextmanager
def running(
    bundle: Bundle, task_root: Path, handler: str, variables: Mapping[str, str], log_file: Path
) -> Iterator[Instance]:
    """Start an instance of a handler, which is written as in serverless.yml; it is killed at the block's end."""
    if sys.platform != "linux":
        raise tools.Missing("The functions are built for Linux, and run there only.")
    with runtime_api.serving() as api, log_file.open("wb") as log:
        process = subprocess.Popen(
            [str(bundle.python), "-S", "-m", "awslambdaric", handler],  # -S: no packages but these
            cwd=task_root,
            env={**environment(task_root, variables), "AWS_LAMBDA_RUNTIME_API": api.address},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Instance(api, process, log_file)
        finally:
            for worker in psutil.Process(process.pid).children() if process.poll() is None else []:
                worker.kill()
            process.kill()
            process.wait()

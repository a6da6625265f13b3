"""The instances of a storm, which begin to read at the same moment: of Python's clients, and of Drizzle."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.storm_clients import LONGEST, PATIENCE, TOO_LONG
from tests.deploy import tools


class Answers(NamedTuple):
    """What the readers saw: the seconds of each read that was served, and why each other one failed."""

    seconds: list[float]
    errors: list[str]
    begun: float  # of the system's monotonic clock
    took: float  # seconds


Blow = Callable[[str], Answers]  # on the database with this URL


def python_clients(client: str, *size: int) -> Blow:
    """Give the storm of a client of bench/storm_clients.py; `size` is processes, threads, reads."""

    def blow(url: str) -> Answers:
        command = [sys.executable, "-m", "bench.storm_clients", client, *map(str, size)]
        # As on Vercel, where an instance's pool is small and its idle connections are closed early.
        environ = {**os.environ, "DATABASE_URL": url, "APP_ENV": "production", "VERCEL": "1"}
        done = subprocess.run(
            command, cwd=tools.ROOT, env=environ, stdout=subprocess.PIPE, timeout=LONGEST + 2 * PATIENCE, check=True
        )
        return Answers(**json.loads(done.stdout))

    return blow


def drizzle(bundle: Path, processes: int, readers: int, number: int, *, prepare: bool) -> Blow:
    """Give the storm of bench/drizzle/storm.mjs. Raises tools.Missing without Node."""
    program = [str(tools.node()), str(bundle)]

    def blow(url: str) -> Answers:
        running = [
            subprocess.Popen(
                [*program, *map(str, (process, readers, number, int(prepare), LONGEST))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={"DATABASE_URL": url},
            )
            for process in range(processes)
        ]
        # Then no instance answers, and the storm fails.
        too_long = threading.Timer(LONGEST + PATIENCE, _kill, [running])
        too_long.start()
        try:
            for process in running:
                assert process.stdout is not None
                process.stdout.readline()
            begun = time.monotonic()
            for process in running:
                assert process.stdin is not None
                process.stdin.write(b"\n")
                process.stdin.flush()
            seen = [json.loads(process.stdout.readline()) for process in running if process.stdout is not None]
            took = time.monotonic() - begun
        finally:
            too_long.cancel()
            _kill(running)
            for process in running:
                process.communicate()
        seconds, errors = ([value for one in seen for value in one[name]] for name in ("seconds", "errors"))
        errors += [TOO_LONG] * (processes * readers * number - len(seconds) - len(errors))
        return Answers(seconds, errors, begun, took)

    return blow


def _kill(processes: Sequence[subprocess.Popen[Any]]) -> None:
    for process in processes:
        process.kill()

"""What may be going on when a fault strikes: seven activities, each begun as its users begin it.

Five are requests to the app, two are commands in processes of their own. Each tells what its users were told, and has
the bytes by which the wire shows that it is under way.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

import app
from shared import db
from shared.web import Endpoint
from shared.web.application import application
from tests import canary
from tests.access import cheap_hashes

DEADLINE = 3.0  # seconds for a request
PATIENCE = 120.0  # seconds until a command that hangs is killed; what it may take is `longest` of its fault
HEADERS = {"origin": "http://localhost"}
EMAIL, PASSWORD = "admin@example.com", "ChangeMe123!"  # the first admin's, as the seed has them in a test

# The tables that the activities read and write.
PREPARE = """
CREATE TABLE ledger (n int NOT NULL);
CREATE TABLE account (id int PRIMARY KEY, writes int NOT NULL);
INSERT INTO account VALUES (1, 0), (2, 0);
CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO item SELECT n, 'item ' || n FROM generate_series(1, 1000) AS n;
"""
# The revision that is pending where a migration is under way.
REVISION = "29990101000000_fault"
MIGRATION = "ALTER TABLE item ADD COLUMN price int;\nCREATE TABLE made_by_migration (x int);"

item = Endpoint("/api/item/{id}")
ledger = Endpoint("/api/ledger/{n}")


@item.get
def read(id: int) -> db.Row | None:
    """Read one row."""
    return db.fetch_one("SELECT id, name FROM item WHERE id = %(id)s", {"id": id})


@ledger.post
def write(n: int) -> dict[str, int]:
    """Enter a number, once, in a transaction that may run again; tell how often it did."""
    attempts = 0

    @db.retry()
    def unit(tx: db.Transaction) -> None:
        nonlocal attempts
        attempts += 1
        tx.execute("INSERT INTO ledger VALUES (%(n)s)", {"n": n})
        tx.execute("UPDATE account SET writes = writes + 1 WHERE id = 1")
        tx.execute("UPDATE account SET writes = writes + 1 WHERE id = 2")

    unit()
    return {"attempts": attempts}


APP = application([*app.endpoints, item, ledger])


@dataclass(frozen=True)
class Told:
    """What whoever began an activity was told.

    `word` is "answered", or the answer's status or exit code with the diagnosis in the log or on the terminal.
    """

    word: str
    seconds: float
    details: str = ""

    @property
    def is_answered(self) -> bool:
        """Tell whether all is done."""
        return self.word.startswith("answered")


class Activity:
    """One of them. `strike` is on the wire when it is under way."""

    name: str
    strike: bytes

    def run(self, number: int) -> Told:
        """Do it, and tell; each time with another number."""
        raise NotImplementedError


Ask = Callable[[str, str, Any], Told]  # method, path and body of a request, and what its answer told


def ask_here(method: str, path: str, body: Any) -> Told:
    """Send a request to the app in this process, whose log has the diagnosis."""
    client = TestClient(APP, base_url="http://localhost", client=("192.0.2.7", 50000))
    with _log() as records, cheap_hashes():
        begun = time.monotonic()
        response = client.request(method, path, json=body, headers=HEADERS)
        seconds = time.monotonic() - begun
    problems = [record for record in records if hasattr(record, "diagnosis") and record.levelno > logging.INFO]
    said = "; ".join(record.getMessage() for record in records)
    assert canary.found_in(said) is None, "a secret in the log"
    if response.status_code < 300:
        return Told("answered", seconds, response.text)
    for record in problems:
        assert getattr(record, "solutions", None), f"no word of what to do: {record.getMessage()}"
    known = f" {getattr(problems[-1], 'diagnosis', '')}" if problems else ""
    return Told(f"{response.status_code}{known}", seconds, said)


class Request(Activity):
    """A request to the app, in this process unless `ask` leads to another one."""

    def __init__(self) -> None:
        self.ask: Ask = ask_here


class Read(Request):
    name, strike = "read", b"FROM item WHERE id"

    def run(self, number: int) -> Told:
        told = self.ask("GET", f"/api/item/{number}", None)
        if told.is_answered:
            assert json.loads(told.details) == {"id": number, "name": f"item {number}"}, "a wrong result"
        return told


class Write(Request):
    name, strike = "write", b"INSERT INTO ledger"

    def run(self, number: int) -> Told:
        told = self.ask("POST", f"/api/ledger/{number}", None)
        again = told.is_answered and json.loads(told.details)["attempts"] > 1
        return Told("answered, at another attempt", told.seconds, told.details) if again else told


class Commit(Write):
    name, strike = "COMMIT", b"COMMIT"


class SignIn(Request):
    name, strike = "sign-in", b"FROM users WHERE lower(email)"

    def run(self, number: int) -> Told:
        return self.ask("POST", "/api/auth/login", {"email": EMAIL, "password": PASSWORD})


class Health(Request):
    name, strike = "health", b"SELECT 1"

    def run(self, number: int) -> Told:
        told = self.ask("GET", "/api/health", None)
        assert told.seconds < DEADLINE, "it promises an answer in 2 s"
        return told


class Command(Activity):
    """A command of the project, in a process of its own."""

    def __init__(self, project: Path, variables: dict[str, str]) -> None:
        self._project = project
        self._variables = variables

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self._project,
            env={**os.environ, **self._variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def end(self, process: subprocess.Popen[str], begun: float) -> Told:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"it hangs: {process.communicate()[0]}") from None
        seconds = time.monotonic() - begun
        assert "Traceback" not in output, output
        if process.returncode == 0:
            return Told("answered", seconds, output)
        if process.returncode > 0 and process.returncode != 130:
            assert re.search(r"^ *(- |• )", output, re.MULTILINE), f"no word of what to do: {output}"
        return Told(f"exit {process.returncode}", seconds, output)


class Migrate(Command):
    name, strike = "migration", b"ALTER TABLE item"

    def begin(self) -> subprocess.Popen[str]:
        """Start the build hook's command."""
        return self.start(["-m", "migrations", "deploy"])

    def run(self, number: int) -> Told:
        return self.end(self.begin(), time.monotonic())


class Backup(Command):
    name, strike = "backup", b"COPY public.item"

    def __init__(self, project: Path, variables: dict[str, str], to: Path) -> None:
        super().__init__(project, variables)
        self.to = to

    def begin(self) -> subprocess.Popen[str]:
        """Start the operator's command."""
        return self.start(["-c", "from ops.cli import main; main()", "backup", "--to", str(self.to)])

    def run(self, number: int) -> Told:
        return self.end(self.begin(), time.monotonic())


REQUESTS: Sequence[type[Request]] = (Read, Write, Commit, SignIn, Health)
NAMES = (*(kind.name for kind in REQUESTS), Migrate.name, Backup.name)


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _log() -> Iterator[list[logging.LogRecord]]:
    """Give what the app logs in the block."""
    handler, logger = _Records(), logging.getLogger("shared")
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)

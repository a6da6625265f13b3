"""Secrets that must never be seen: those of the tests hold a mark, and whatever a run writes is searched for it.

Searched are the captured output and log of each test, what processes that it starts give back, JSON that the app
answers, and at the end the servers' logs. A test that shows a secret on purpose is marked `shows_secrets`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from shared.web import reply
from tests.servers.postgres import APP_PASSWORD

MARK = "cAnArY"
PASSWORD = f"{MARK} battery staple"
NEW_PASSWORD = f"{MARK} horse correct"

_secrets = {MARK, APP_PASSWORD, quote(APP_PASSWORD, safe="")}
_in_answers = {"$argon2id$"}
_leaks: list[str] = []


def watch(secret: str) -> str:
    """Have a secret that was made at random, such as a token, searched for too; gives it back."""
    _secrets.add(secret)
    return secret


def found_in(text: str) -> str | None:
    """Give the first line of a text that holds a secret, the secret starred out."""
    for secret in _secrets:
        if secret in text:
            line = next((line for line in text.splitlines() if secret in line), text)
            return line.replace(secret, "********")[:300]
    return None


def check_files(directory: Path) -> None:
    """Raise AssertionError where a log file below a directory holds a secret."""
    for file in sorted(directory.rglob("*.log")):
        line = found_in(file.read_text("utf-8", "replace"))
        assert line is None, f"a secret in {file.name}: {line}"


# -- hooks of pytest, which tests/conftest.py imports -----------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Have what processes and the app say looked at."""
    config.addinivalue_line("markers", "shows_secrets: shows a secret on purpose")
    communicate, encode = subprocess.Popen.communicate, reply.encode

    def watched_communicate(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = communicate(self, *args, **kwargs)
        asked_for = isinstance(self.args, list) and "--show-password" in self.args
        for output in () if asked_for else outputs:
            _note("the output of a process", output)
        return outputs

    def watched_encode(value: Any) -> bytes:
        encoded = encode(value)
        _note("an answer of the app", encoded)
        for secret in _in_answers:
            if secret.encode() in encoded:
                _leaks.append("a password's hash in an answer of the app")
        return encoded

    subprocess.Popen.communicate = watched_communicate  # type: ignore[method-assign]
    reply.encode = watched_encode


def _note(place: str, output: str | bytes | None) -> None:
    text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
    line = found_in(text)
    if line is not None:
        _leaks.append(f"a secret in {place}: {line}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that passed and let a secret be seen."""
    report = yield
    for name, text in report.sections:
        _note(name, text)
    leaks, _leaks[:] = _leaks[:], []
    if leaks and report.passed and item.get_closest_marker("shows_secrets") is None:
        report.outcome = "failed"
        report.longrepr = "\n".join(leaks)
    return report

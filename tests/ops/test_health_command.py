"""`db health`: what it prints for people and programs, and its exit codes."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from rich.console import Console

from ops import cli, health
from shared import db
from shared.db.session import identifier
from shared.health.report import make_report
from shared.health.topics import TOPICS
from shared.settings import reset_settings
from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
NAMES = [check.name for checks in TOPICS.values() for check in checks]


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `db health` on the database of a URL: run(url, "--json")."""

    def run(url: str, *arguments: str) -> Done:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("APP_ENV", "test")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["db", "health", *arguments])
        reset_settings()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        db.close_db(grace=0)
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_a_program_gets_an_object_and_the_exit_code(run: Run, migrated_database: str) -> None:
    done = run(migrated_database, "--json")

    found = json.loads(done.out)
    assert [check["name"] for check in found["checks"]] == NAMES
    failed = [check["name"] for check in found["checks"] if check["verdict"] == "fail"]
    # The tests' server need not survive a crash; everything else of it is well.
    assert (failed, found["status"], done.code) == (["settings"], "fail", 5)
    assert "Failed: settings." in done.err
    assert {"topic", "title", "summary", "value", "unit", "threshold", "rows", "advice", "sql"} <= set(
        found["checks"][0]
    )


def test_a_pipe_gets_plain_lines(run: Run, migrated_database: str) -> None:
    lines = run(migrated_database).out.splitlines()

    assert lines[0].startswith("fail\t")
    assert [line.split("\t")[1] for line in lines[1:] if not line.startswith("\t")] == NAMES
    assert "\tALTER SYSTEM SET fsync = 'on';" in lines
    assert any(line.startswith("\ttable: public.users, live rows: ") for line in lines)
    assert not any("│" in line or "\x1b" in line for line in lines)


def test_a_person_gets_tables(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_database)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    with psycopg.connect(migrated_database, autocommit=True) as owner:
        owner.execute(f"CREATE TABLE {identifier('[bold]odd')} (n int)")
    written = io.StringIO()
    health._print(Console(file=written, force_terminal=True, width=200, color_system=None), make_report())
    shown = written.getvalue()
    for text in (
        "Connection",
        "It answers in",
        "Settings that hurt: fail",
        "ALTER SYSTEM",
        "[bold]odd",
        "live rows",
        "│",
    ):
        assert text in shown


def test_exit_code_0_where_nothing_fails(run: Run, migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.health.checks.settings.RULES", ())
    done = run(migrated_database, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["status"] in ("ok", "warn")


def test_no_connection_is_exit_code_4_with_the_diagnosis(run: Run) -> None:
    port = free_port()
    done = run(f"postgresql://app:canary@127.0.0.1:{port}/db", "--json")

    assert done.code == 4
    assert json.loads(done.out)["status"] == "fail"
    assert f"Nobody listens at 127.0.0.1:{port}" in done.err
    assert "canary" not in done.out + done.err
    assert run("nonsense").code == 3


def test_seconds_are_checked(run: Run) -> None:
    done = run("postgresql://app@127.0.0.1/db", "--watch", "0")
    assert done.code == 2


def test_watching_goes_on_until_it_is_interrupted(migrated_database: str) -> None:
    command = [sys.executable, "-c", "from ops.cli import main; main()", "health", "--json", "--watch", "0.5"]
    environ = {**os.environ, "DATABASE_URL": migrated_database, "APP_ENV": "test"}
    watching = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        first: dict[str, Any] = json.loads(watching.stdout.readline())
        with psycopg.connect(migrated_database, autocommit=True) as owner:
            owner.execute("CREATE TABLE new (id smallserial)")
            owner.execute("SELECT setval('new_id_seq', 32000)")
        later = (json.loads(line) for line in watching.stdout)
        verdicts = (next(c["verdict"] for c in found["checks"] if c["name"] == "sequences") for found in later)
        assert [c["verdict"] for c in first["checks"] if c["name"] == "sequences"] == ["ok"]
        assert next(verdict for verdict in verdicts if verdict != "ok") == "fail"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
    finally:
        watching.kill()
        watching.communicate()

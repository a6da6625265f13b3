"""The frame of the command line: exit codes, one clear message, and no secret in it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.embedded import find_binaries
from tests.servers.postgres import APP_PASSWORD, Postgres

DB = [sys.executable, "-c", "from ops.cli import main; main()"]


def db(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `db` in a folder of its own, so that no .env of the checkout is read."""
    return subprocess.run(
        [*DB, *arguments], cwd=cwd, env=environ(variables), capture_output=True, text=True, timeout=60
    )


def environ(variables: Mapping[str, str]) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "NO_COLOR": "1", "COLUMNS": "200", **variables}


def test_url_masks_the_password_unless_asked(database: str, tmp_path: Path) -> None:
    masked = db("url", cwd=tmp_path, DATABASE_URL=database)
    assert (masked.returncode, masked.stderr) == (0, "")
    assert "app:********@127.0.0.1" in masked.stdout
    shown = db("url", "--show-password", cwd=tmp_path, DATABASE_URL=database)
    assert shown.stdout.strip() == f"{database}?sslmode=prefer"


def test_url_as_json(database: str, tmp_path: Path) -> None:
    result = db("url", "--json", cwd=tmp_path, DATABASE_URL=database)
    assert json.loads(result.stdout)["environment"] == "development"


def test_a_dotenv_file_is_read_and_the_environment_beats_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://file@127.0.0.1/a\n")
    assert "file@" in db("url", cwd=tmp_path).stdout
    assert "shell@" in db("url", cwd=tmp_path, DATABASE_URL="postgresql://shell@127.0.0.1/a").stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "words"),
    [
        (["url"], {"DATABASE_URL": "mysql://canary:canary@h/d"}, 3, "does not begin with postgresql://"),
        (["url"], {"APP_ENV": "production"}, 3, "DATABASE_URL is not set"),
        (["url"], {"APP_ENV": "staging"}, 3, "Allowed: development, test, preview, production"),
        (["migrate"], {"DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/d"}, 4, "Connection refused"),
        (["nonsense"], {}, 2, "No such command"),
        (["url", "--nonsense"], {}, 2, "No such option"),
    ],
)
def test_each_failure_has_its_exit_code_and_one_message(
    arguments: list[str], variables: dict[str, str], code: int, words: str, tmp_path: Path
) -> None:
    result = db(*arguments, cwd=tmp_path, **variables)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert "canary" not in result.stdout + result.stderr


def test_a_wrong_password_is_told_apart_and_not_repeated(database: str, tmp_path: Path) -> None:
    result = db("migrate", cwd=tmp_path, DATABASE_URL=database.replace("@127", "canary@127"))
    assert result.returncode == 4
    assert "password authentication failed" in result.stderr
    assert "canary" not in result.stderr
    assert APP_PASSWORD not in result.stderr


def test_shell_passes_arguments_and_the_password_to_psql(database: str, tmp_path: Path) -> None:
    psql = str(find_binaries(lambda _: None))
    result = db(
        "shell", "-At", "-c", "SELECT current_user", cwd=tmp_path, DATABASE_URL=database,
        PATH=f"{psql}:{os.environ['PATH']}",
    )  # fmt: skip
    assert (result.stdout.strip(), result.returncode) == ("app", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_exit_130_without_a_traceback(
    postgres: Postgres, database: str, tmp_path: Path, number: signal.Signals
) -> None:
    # An open transaction that has the migrations' table keeps the command waiting.
    import psycopg

    with psycopg.connect(database) as blocker:
        blocker.execute("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
        process = subprocess.Popen(
            [*DB, "migrate"], cwd=tmp_path, env=environ({"DATABASE_URL": database}), stderr=subprocess.PIPE, text=True
        )
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not blocker.execute(waiting).fetchone():
            assert process.poll() is None, process.stderr and process.stderr.read()
            blocker.execute("SELECT pg_stat_clear_snapshot()")
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr

"""kill -9 in the middle of a backup and of a restore: what is left, and what the next command makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ops.embedded import ROOT
from tests.ops.backup import database as contents
from tests.ops.backup.conftest import Db
from tests.servers import binaries
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of

WAIT = 20.0  # seconds for what is waited for; never reached where all is well
BACKUP = "import sys; from ops.backup import dump; dump.create(sys.argv[1], report=print)"
RESTORE = """
import sys
from ops.backup import restore
restore.restore(sys.argv[1], consent=lambda name: True, safety_to=None, report=print)
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait for what offers no event: another process's file, a session's state."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def started(program: str, argument: Path, url: str, path: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of ours in a session of its own, which is killed at the end of the block."""
    environ = {
        **os.environ,
        "DATABASE_URL": url,
        "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(argument)], cwd=ROOT, env=environ, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def stalling(tmp_path: Path, postgres: Postgres) -> Path:
    """Return a folder with the real programs, whose pg_dump stalls after 20,000 bytes and notes its arguments."""
    real = binaries.postgres(postgres.major)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("psql", "pg_restore"):
        (folder / name).symlink_to(real.directory / name)
    script = f"""#!/bin/sh
export LD_LIBRARY_PATH='{real.environ["LD_LIBRARY_PATH"]}'
case "$1" in --version) exec '{real.directory}/pg_dump' --version;; esac
echo "$@" > '{folder}/arguments'
'{real.directory}/pg_dump' "$@" | (head -c 20000; exec sleep 600)
"""
    (folder / "pg_dump").write_text(script, encoding="utf-8")
    (folder / "pg_dump").chmod(0o755)
    return folder


def test_a_killed_backup_leaves_nothing_that_looks_whole(filled: str, stalling: Path, db: Db, tmp_path: Path) -> None:
    folder = tmp_path / "backups"

    def written() -> bool:
        return any(path.stat().st_size >= 8192 for path in folder.glob("*.part"))

    with started(BACKUP, folder, filled, stalling) as process:
        until(written)
        process.kill()
        process.wait()
    (left,) = folder.iterdir()

    assert left.name.endswith(".dump.part")
    arguments = (stalling / "arguments").read_text("utf-8")
    assert "--snapshot=" in arguments
    assert "p%25" not in arguments, "every user of the machine can read these"
    (listed,) = json.loads(db(filled, "backups", str(folder), "--json"))
    assert (listed["name"], listed["problem"]) == (left.name, "unfinished: under way, or interrupted")

    output = db(filled, "backup", "--to", str(folder))

    assert f"Removed {left.name}" in output
    (listed,) = json.loads(db(filled, "backups", str(folder), "--json"))
    assert listed["problem"] is None


def test_a_backup_whose_manifest_is_missing_is_listed_as_incomplete(filled: str, backup: Path, db: Db) -> None:
    """Killed between the dump and its manifest."""
    Path(f"{backup}.json").unlink()
    (listed,) = json.loads(db(filled, "backups", str(backup.parent), "--json"))
    assert listed["problem"].startswith("no manifest: interrupted")


def test_a_killed_restore_changes_nothing_and_can_be_repeated(
    postgres: Postgres, filled: str, backup: Path, db: Db
) -> None:
    with postgres.database() as name:
        url = postgres.url(name)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE a (id int); INSERT INTO a VALUES (1); CREATE TABLE z (id int)")
        blocked = """
            SELECT count(*) > 0 FROM pg_stat_activity
            WHERE datname = %s AND wait_event_type = 'Lock' AND query LIKE 'DROP table%%'
        """
        with psycopg.connect(url) as reader:
            reader.execute("SELECT FROM z")  # the restore has dropped `a`, and waits for this one
            with started(RESTORE, backup, url) as process:
                until(lambda: postgres.admin().execute(blocked, [name]).fetchone() == (True,))
                process.kill()
                process.wait()
                reader.rollback()
                # Whoever was left finds the end of its input, and no COMMIT in it.
                others = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
                until(lambda: postgres.admin().execute(others, [name, reader.info.backend_pid]).fetchone() == (0,))
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id, to_regclass('note') FROM a").fetchone() == (1, None)

        db(url, "restore", str(backup), "--yes-i-mean", name_of(url))

        assert contents.state(url) == contents.state(filled)

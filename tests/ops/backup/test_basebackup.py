"""`db basebackup` and point-in-time recovery as docs/BACKUP.md has it: the server as it was at a moment between two."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psycopg
import pytest

from shared.errors import Refused
from tests.ops.backup.conftest import Db
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres


def test_a_server_comes_back_as_it_was_at_a_moment(db: Db, run_directory: Path, tmp_path: Path) -> None:
    archive = run_directory / "wal-archive"
    archive.mkdir(mode=0o777)
    archive.chmod(0o777)
    data = run_directory / "archiving" / "data"
    settings = {
        "archive_mode": "on",
        "archive_command": f"cd '{archive}' && test ! -f %f && cp '{data}/%p' %f.part && mv %f.part %f",
        "wal_level": "replica",
    }
    with servers.running(18, run_directory / "archiving", settings) as postgres:
        url = postgres.admin_url()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE event (what text); INSERT INTO event VALUES ('before the copy')")

            output = db(url, "basebackup", "--to", str(tmp_path))

            (copy,) = tmp_path.glob("base-*")
            assert str(copy) in output
            connection.execute("INSERT INTO event VALUES ('after the copy')")
            row = connection.execute("SELECT clock_timestamp()::text").fetchone()
            assert row is not None
            connection.execute("INSERT INTO event VALUES ('a mistake')")
            segment = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
            assert segment is not None
            deadline = time.monotonic() + 20
            while not (archive / segment[0]).exists():  # the archiver tells nobody
                assert time.monotonic() < deadline
                time.sleep(0.01)

    recovered = Postgres(18, run_directory / "recovered", {
        "archive_mode": "off",
        "restore_command": f"cp '{archive}/%f' '%p'",
        "recovery_target_time": row[0],
        "recovery_target_action": "promote",
    })  # fmt: skip
    shutil.copytree(copy, recovered.server.data_dir)
    (recovered.server.data_dir / "recovery.signal").touch()
    try:
        recovered.server.start(die_with_parent=True)
        events = recovered.admin().execute("SELECT what FROM event ORDER BY ctid").fetchall()
    finally:
        recovered.close()
    assert events == [("before the copy",), ("after the copy",)]


def test_a_user_without_the_right_is_told_the_sql(postgres: Postgres, filled: str, db: Db, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="REPLICATION") as raised:
        db(filled, "basebackup", "--to", str(tmp_path))
    assert "ALTER ROLE app REPLICATION;" in raised.value.solutions[0]
    assert list(tmp_path.iterdir()) == []

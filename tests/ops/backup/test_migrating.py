"""Backups beside migrations: one waits for the other, and one is made before what is pending."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from migrations import lock
from ops.backup import dump
from shared.errors import LockTimeout, Refused
from shared.health.report import make_report
from shared.settings import reset_settings
from tests.ops.backup.conftest import Db
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of


def test_a_backup_before_a_migration_is_made_where_something_is_pending(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    reset_settings()
    dump.snapshot_before_migration(str(tmp_path / "x.dump"), report=lambda _: None)
    assert json.loads((tmp_path / "x.dump.json").read_text("utf-8"))["reason"] == "before a migration"


def test_the_health_checks_know_the_last_backup(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_database)
    reset_settings()
    assert make_report()["last_backup"].value is None

    dump.create(str(tmp_path / "x.dump"), report=lambda _: None)

    fresh = make_report()["last_backup"]
    assert (fresh.value, fresh.verdict) == (0.0, "ok")
    with psycopg.connect(migrated_database) as connection:
        connection.execute("UPDATE migration_state SET backed_up_at = now() - interval '9 days'")
    old = make_report()["last_backup"]
    assert (old.value, old.verdict) == (9.0, "warn")
    with psycopg.connect(migrated_database) as connection:
        connection.execute("ALTER TABLE migration_state DROP COLUMN backed_up_at")
    assert make_report()["last_backup"].value is None
    dump.create(str(tmp_path / "y.dump"), report=lambda _: None)  # and does without


def test_no_backup_is_made_where_nothing_is_pending(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_database)
    reset_settings()
    said: list[str] = []
    dump.snapshot_before_migration(str(tmp_path), report=said.append)
    assert said == ["Nothing is pending, so no backup was made"]
    assert list(tmp_path.iterdir()) == []


def test_a_backup_waits_for_a_migration(filled: str, db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lock.taken.__wrapped__.__kwdefaults__, "wait", 0.2)  # type: ignore[attr-defined]
    with psycopg.connect(filled, autocommit=True, application_name="db migrate") as migration:
        migration.execute("SELECT pg_advisory_lock(%s)", [lock.KEY])
        with pytest.raises(LockTimeout, match="Another migration is running: pid"):
            db(filled, "backup", "--to", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_locked_table_is_said(filled: str, db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATION_LOCK_TIMEOUT", "0.2")
    with psycopg.connect(filled) as other:
        other.execute("LOCK TABLE note")
        with pytest.raises(LockTimeout, match="locked a table"):
            db(filled, "backup", "--to", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_may_not_be_read_is_said(postgres: Postgres, database: str, db: Db, tmp_path: Path) -> None:
    with psycopg.connect(postgres.admin_url(name_of(database)), autocommit=True) as connection:
        connection.execute("CREATE TABLE secret (id int)")
        connection.execute("GRANT USAGE ON SCHEMA public TO app")
    with pytest.raises(Refused, match="permission denied for table secret"):
        db(database, "backup", "--to", str(tmp_path))
    assert list(tmp_path.iterdir()) == []

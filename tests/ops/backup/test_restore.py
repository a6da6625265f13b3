"""`db backup` and `db restore`: what comes back, into which servers, and what is asked before something is replaced."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from shared.errors import BackupError, DirectConnectionRequired, EnvironmentMismatch, Refused
from tests.ops.backup import database as contents
from tests.ops.backup.conftest import Db
from tests.servers import binaries, tls
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of


@pytest.fixture
def target(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a second, empty database."""
    with postgres.database() as name:
        yield postgres.url(name)


def test_everything_comes_back(any_postgres: Postgres, db: Db, tmp_path: Path) -> None:
    with any_postgres.database() as first, any_postgres.database() as second:
        contents.fill(any_postgres, any_postgres.url(first))
        before = contents.state(any_postgres.url(first))
        output = db(any_postgres.url(first), "backup", "--to", str(tmp_path))

        (dump,) = tmp_path.glob("*.dump")
        assert str(dump) in output
        assert dump.stat().st_mode & 0o077 == 0, "nobody else may read it"
        manifest = json.loads(Path(f"{dump}.json").read_text("utf-8"))
        assert manifest["tables"] == {
            "Other Schema.high": 100,
            "Other Schema.low": 100,
            "public.alembic_version": 1,
            "public.note": 2000,
        }
        assert manifest["server_version"].startswith(f"{any_postgres.major}.")
        assert manifest["pg_dump_version"].startswith(f"{any_postgres.major}."), "an older server could not read it"
        assert (manifest["schema_head"], manifest["large_objects"]) == ("20260101000000", 2)
        assert (manifest["owners"], manifest["extensions"].keys()) == (["app"], {"pg_trgm"})
        assert "p%25" not in str(manifest), "no part of the password"

        db(any_postgres.url(second), "restore", str(dump))

        assert contents.state(any_postgres.url(second)) == before
        # A later insert continues where the identity was.
        with psycopg.connect(any_postgres.url(second)) as connection:
            row = connection.execute("INSERT INTO note (body) VALUES ('new') RETURNING id").fetchone()
        assert row == (2001,)


def test_an_older_server_s_backup_restores_into_a_newer_one(
    postgres_of: Callable[[int], Postgres], postgres: Postgres, target: str, db: Db, tmp_path: Path
) -> None:
    oldest = postgres_of(binaries.MAJORS[0])
    contents.fill(postgres, target)  # the role that its rights name
    with oldest.database() as name:
        contents.fill(oldest, oldest.url(name))
        db(oldest.url(name), "backup", "--to", str(tmp_path / "old.dump"))
        before = contents.state(oldest.url(name))

    db(target, "restore", str(tmp_path / "old.dump"), "--yes-i-mean", name_of(target))

    assert contents.state(target) == before


def test_a_newer_server_s_backup_is_refused_by_an_older_one(
    postgres_of: Callable[[int], Postgres], backup: Path, db: Db
) -> None:
    oldest = postgres_of(binaries.MAJORS[0])
    with oldest.database() as name:
        with pytest.raises(Refused, match=r"made of PostgreSQL 18.*this server is PostgreSQL 16"):
            db(oldest.url(name), "restore", str(backup))
        assert contents.is_empty(oldest.url(name))


def test_a_newer_pg_dump_s_backup_of_an_old_server_restores_there(
    postgres_of: Callable[[int], Postgres], db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only new programs are installed; theirs is a setting that PostgreSQL 16 does not know."""
    newest = binaries.postgres(binaries.MAJORS[-1]).directory
    monkeypatch.setattr("ops.backup.tools._directories", lambda: [newest])
    oldest = postgres_of(binaries.MAJORS[0])
    with oldest.database() as first, oldest.database() as second:
        contents.fill(oldest, oldest.url(first))
        db(oldest.url(first), "backup", "--to", str(tmp_path / "x.dump"))
        db(oldest.url(second), "restore", str(tmp_path / "x.dump"))
        assert contents.state(oldest.url(second)) == contents.state(oldest.url(first))


def test_a_database_that_is_not_empty_is_replaced_only_by_name_and_after_a_backup(
    backup: Path, filled: str, target: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("CREATE TABLE note (kept int); INSERT INTO note VALUES (7)")
        connection.execute("CREATE TABLE newer (id int); CREATE TYPE mood AS (a int)")

    with pytest.raises(Refused, match="not empty"):
        db(target, "restore", str(backup))
    with pytest.raises(Refused, match="not something_else"):
        db(target, "restore", str(backup), "--yes-i-mean", "something_else")
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT kept FROM note").fetchone() == (7,)

    output = db(target, "restore", str(backup), "--yes-i-mean", name_of(target))

    assert contents.state(target) == contents.state(filled)
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT to_regclass('newer')").fetchone() == (None,), "what came later is gone"
    # And what was there can be had again.
    safety = output.partition("can be restored from ")[2].splitlines()[0]
    assert json.loads(Path(f"{safety}.json").read_text("utf-8"))["reason"] == "before a restore"
    db(target, "restore", safety, "--yes-i-mean", name_of(target))
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT kept FROM note").fetchone() == (7,)


def test_another_environment_s_database_is_not_replaced(
    backup: Path, target: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE migration_state (environment text); INSERT INTO migration_state VALUES ('production')"
        )
    monkeypatch.setenv("APP_ENV", "test")
    with pytest.raises(EnvironmentMismatch):
        db(target, "restore", str(backup), "--yes-i-mean", name_of(target))


def test_what_the_server_refuses_leaves_the_database_as_it_was(
    postgres: Postgres, backup: Path, target: str, db: Db
) -> None:
    """Everything is one transaction: the last statement's failure takes back the first one."""
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    with psycopg.connect(postgres.admin_url(name_of(target)), autocommit=True) as connection:
        # A schema of somebody else's, which this user can neither use nor drop.
        connection.execute('CREATE SCHEMA "Other Schema"')
        connection.execute('GRANT USAGE ON SCHEMA "Other Schema" TO app')
    with pytest.raises(BackupError, match="must be owner of schema") as raised:
        db(target, "restore", str(backup), "--yes-i-mean", name_of(target))
    assert "as it was before" in raised.value.solutions[0]
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT to_regclass('kept'), to_regclass('note')").fetchone() == ("kept", None)


def test_a_pooler_is_refused(pgbouncer: PgBouncer, filled: str, db: Db, tmp_path: Path) -> None:
    with pytest.raises(DirectConnectionRequired):
        db(pgbouncer.url(filled), "backup", "--to", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_server_with_tls(tls_postgres: tls.TLSPostgres, db: Db, tmp_path: Path) -> None:
    postgres = tls_postgres.postgres
    with postgres.database() as name:
        url = f"{postgres.url(name)}?sslmode=verify-full&sslrootcert={tls_postgres.certificates.ca}"
        output = db(url, "backup", "--to", str(tmp_path))
    assert "0 rows" in output


def test_the_counts_are_those_of_the_dump_s_snapshot(database: str, db: Db, tmp_path: Path) -> None:
    """Rows are written all the time, and the manifest is right about each of them."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE a (id int); CREATE TABLE b (id int)")
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    try:
        db(database, "backup", "--to", str(tmp_path / "x.dump"))
    finally:
        stop.set()
        writer.join()
    tables = json.loads((tmp_path / "x.dump.json").read_text("utf-8"))["tables"]
    assert tables["public.a"] == tables["public.b"] > 0
    db(database, "restore", str(tmp_path / "x.dump"), "--yes-i-mean", name_of(database))
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (tables["public.a"],)


def test_an_existing_file_is_not_overwritten(backup: Path, filled: str, db: Db) -> None:
    before = backup.read_bytes()
    with pytest.raises(Refused, match="there already"):
        db(filled, "backup", "--to", str(backup))
    assert backup.read_bytes() == before

"""`db backup verify` restores into a scratch server and compares; what it cannot tell is no failure of the dump."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops import embedded
from ops.backup import manifest, scratch, tools
from shared.db.url import DatabaseURL
from shared.errors import BackupError
from tests.ops.backup.conftest import Db
from tests.servers import binaries
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of


def manifest_of(dump: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{dump}.json").read_text("utf-8"))
    return found


def test_a_good_backup_is_marked_as_verified(backup: Path, filled: str, db: Db) -> None:
    assert manifest_of(backup)["verified_at"] is None

    output = db(filled, "backup", "verify", str(backup.parent))

    assert f"Verified: {backup} restores into PostgreSQL 18" in output
    found = manifest_of(backup)
    assert found["verified_at"] is not None
    (listed,) = json.loads(db(filled, "backups", str(backup.parent), "--json"))
    assert (listed["name"], listed["problem"]) == (backup.name, None)
    assert listed["manifest"]["verified_at"] == found["verified_at"]
    assert not list((embedded.ROOT / ".data").glob(f"scratch-{os.getpid()}*"))


def test_a_backup_that_is_not_what_its_manifest_says_fails(backup: Path, filled: str, db: Db) -> None:
    found = manifest_of(backup)
    found["tables"]["public.note"] += 1
    found["tables"]["public.other"] = 0
    found["schema_head"] = "20270101000000"
    found["large_objects"] = 3
    Path(f"{backup}.json").write_text(json.dumps(found), encoding="utf-8")

    with pytest.raises(BackupError) as raised:
        db(filled, "backup", "verify", str(backup))

    for difference in (
        "public.note: 2001 rows in the database, 2000 in the dump",
        "public.other: 0 rows in the database, none in the dump",
        "schema revision 20270101000000 in the database, 20260101000000 in the dump",
        "3 large objects in the database, 2 in the dump",
    ):
        assert difference in raised.value.message
    assert manifest_of(backup)["verified_at"] is None


def test_a_dump_by_plain_pg_dump_is_accepted_with_a_word(
    postgres: Postgres, filled: str, db: Db, tmp_path: Path
) -> None:
    program = binaries.postgres(postgres.major)
    dump = tmp_path / "plain.backup"
    command = [str(program.directory / "pg_dump"), "--format=custom", f"--file={dump}", f"--dbname={filled}"]
    subprocess.run(command, check=True, env={**os.environ, **program.environ})

    output = db(filled, "backup", "verify", str(dump))

    assert "no manifest" in output
    assert "4 tables, 2201 rows, 2 large objects, schema revision 20260101000000" in output
    assert not Path(f"{dump}.json").exists()
    with postgres.database() as name:
        output = db(postgres.url(name), "restore", str(dump))
    assert "Without a manifest" in output


def test_an_extension_that_no_build_of_this_machine_has_is_named_and_no_failure(
    postgres: Postgres, db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.database() as name:
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pgcrypto; CREATE TABLE a (id uuid DEFAULT gen_random_uuid())")
            connection.execute(
                "CREATE FUNCTION f(text) RETURNS bytea LANGUAGE sql BEGIN ATOMIC SELECT digest($1, 'md5'); END"
            )
            connection.execute("INSERT INTO a DEFAULT VALUES")
        db(postgres.url(name), "backup", "--to", str(tmp_path / "x.dump"))
        # The embedded server's build has no pgcrypto; the tests' own has.
        without = embedded.find_binaries()
        monkeypatch.setattr(tools, "_directories", lambda: [without])
        with pytest.raises(BackupError, match=r"is intact, and was not verified to the end.* lacks extension pgcrypto"):
            db(postgres.url(name), "backup", "verify", str(tmp_path / "x.dump"))
    assert manifest_of(tmp_path / "x.dump")["verified_at"] is None


def test_the_build_with_all_extensions_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = [embedded.find_binaries(), binaries.postgres(18).directory]
    for directories in (builds, builds[::-1]):
        monkeypatch.setattr(tools, "_directories", lambda found=directories: found)
        chosen = scratch.choose(at_least=16, extensions=["pg_trgm", "pgcrypto"], report=lambda _: None)
        assert (chosen.tools.directory, chosen.missing) == (builds[1], ())
        chosen = scratch.choose(at_least=16, extensions=["pg_trgm", "vector"], report=lambda _: None)
        assert (chosen.tools.directory, chosen.missing) == (builds[0], ())


def test_programs_without_tls_are_not_chosen_for_a_server_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = [embedded.find_binaries(), binaries.postgres(18).directory]
    monkeypatch.setattr(tools, "_directories", lambda: builds)
    assert tools.choose(at_least=18, purpose="A test").directory == builds[0]
    assert tools.choose(at_least=18, tls=True, purpose="A test").directory == builds[1]


def test_databases_of_one_name_on_two_servers_have_two_series(filled: str) -> None:
    first = manifest.series_of(DatabaseURL.parse("postgresql://u@a.example.com/app"))
    second = manifest.series_of(DatabaseURL.parse("postgresql://u@b.example.com/app"))
    assert first.startswith("app-")
    assert first != second, "one would thin out the other's backups"
    odd = manifest.name_of(manifest.series_of(DatabaseURL.parse("postgresql://u@a/a%2F..%2Fb")), manifest.now())
    assert "/" not in odd
    assert manifest.series_in(odd)
    assert name_of(filled) in manifest.series_of(DatabaseURL.parse(filled))

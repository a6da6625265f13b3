"""A dump that is damaged, incomplete or none is refused before the database is touched."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ops.backup import archive
from shared.errors import BackupError, LocalEnvironmentError
from tests.ops.backup.conftest import Db
from tests.servers import binaries
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of


def manifest_of(dump: Path) -> Path:
    return Path(f"{dump}.json")


def truncate(dump: Path) -> None:
    dump.write_bytes(dump.read_bytes()[:-1000])


def truncate_behind_the_contents(dump: Path) -> None:
    """`pg_restore --list` is content with it."""
    content = dump.read_bytes()
    dump.write_bytes(content[: len(content) // 2])


def truncate_the_end(dump: Path) -> None:
    """It ends in a large object, so that pg_restore's SQL ends between two statements."""
    dump.write_bytes(dump.read_bytes()[:-8])


def flip(dump: Path) -> None:
    content = bytearray(dump.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    dump.write_bytes(content)


def flip_last(dump: Path) -> None:
    content = bytearray(dump.read_bytes())
    content[-1] ^= 0x10
    dump.write_bytes(content)


def append(dump: Path) -> None:
    dump.write_bytes(dump.read_bytes() + b"\0")


def newer_format(dump: Path) -> None:
    content = bytearray(dump.read_bytes())
    content[6] = 99  # the minor version of the format
    dump.write_bytes(content)


def empty(dump: Path) -> None:
    dump.write_bytes(b"")


def script(dump: Path) -> None:
    dump.write_text("--\n-- PostgreSQL database dump\n--\nDROP TABLE kept;\n", encoding="utf-8")


def other(dump: Path) -> None:
    dump.write_bytes(random.Random(5).randbytes(5000))


def damaged_manifest(dump: Path) -> None:
    manifest_of(dump).write_text('{"format": 1, "database"', encoding="utf-8")


DAMAGES = (
    truncate,
    truncate_the_end,
    truncate_behind_the_contents,
    flip,
    flip_last,
    append,
    newer_format,
    empty,
    script,
    other,
)


@pytest.fixture(scope="module")
def target(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as name:
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        yield postgres.url(name)


@pytest.mark.parametrize(
    ("damage", "with_manifest"),
    [
        *((damage, True) for damage in DAMAGES),
        # Only a checksum tells of the others: pg_restore does not read those bytes.
        *((damage, False) for damage in DAMAGES if damage not in (append, flip_last)),
    ],
)
def test_it_is_refused(damage: Callable[[Path], None], with_manifest: bool, backup: Path, target: str, db: Db) -> None:
    if not with_manifest:
        manifest_of(backup).unlink()
    damage(backup)
    for command in (["restore", str(backup), "--yes-i-mean", name_of(target)], ["backup", "verify", str(backup)]):
        with pytest.raises(BackupError) as raised:
            db(target, *command)
        assert backup.name in raised.value.message
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == ("kept",)
    assert {path.name for path in backup.parent.iterdir()} <= {backup.name, manifest_of(backup).name}


def test_a_folder_is_not_restored(backup: Path, target: str, db: Db) -> None:
    """Its newest backup may be the one that the last restore made of what it replaced."""
    with pytest.raises(BackupError, match="is no dump"):
        db(target, "restore", str(backup.parent))


def test_a_damaged_manifest_says_so(backup: Path, target: str, db: Db) -> None:
    damaged_manifest(backup)
    with pytest.raises(BackupError, match=r"json is damaged"):
        db(target, "restore", str(backup), "--yes-i-mean", name_of(target))
    (listed,) = json.loads(db(target, "backups", str(backup.parent), "--json"))
    assert "is damaged" in listed["problem"]


def test_a_manifest_of_a_newer_version_says_so(backup: Path, target: str, db: Db) -> None:
    manifest = manifest_of(backup)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text("utf-8")), "format": 2}), encoding="utf-8")
    with pytest.raises(BackupError, match="has format 2"):
        db(target, "backup", "verify", str(backup))


@pytest.mark.parametrize(
    ("damage", "with_manifest", "message"),
    [(append, True, "SHA-256"), (truncate_the_end, False, "is damaged or incomplete")],
)
def test_a_dump_that_is_changed_after_it_was_checked_is_not_restored(
    damage: Callable[[Path], None],
    with_manifest: bool,
    message: str,
    postgres: Postgres,
    backup: Path,
    db: Db,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """COMMIT is sent when pg_restore has ended well, and it gets the last piece when the checksum of all is right."""
    if not with_manifest:
        manifest_of(backup).unlink()
    checked = archive.check

    def check(*arguments: object) -> None:
        checked(*arguments)  # type: ignore[arg-type]
        damage(backup)

    monkeypatch.setattr(archive, "check", check)
    with postgres.database() as name:
        with pytest.raises(BackupError, match=message):
            db(postgres.url(name), "restore", str(backup))
        with psycopg.connect(postgres.url(name)) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384").fetchone()
        assert tables == (0,)


def test_a_program_that_is_too_old_is_named(backup: Path, target: str, db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = binaries.postgres(binaries.MAJORS[0]).directory
    monkeypatch.setattr("ops.backup.tools._directories", lambda: [oldest])
    with pytest.raises(LocalEnvironmentError, match=r"too old: 16\.") as raised:
        db(target, "backup", "--to", str(backup.parent))
    assert "postgresql-client-18" in raised.value.solutions[0]
    with pytest.raises(LocalEnvironmentError, match=r"Reading this dump needs .* PostgreSQL 1[78]"):
        db(target, "restore", str(backup))

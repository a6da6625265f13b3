"""The ledger: who keeps it, what it tells, and how files that do not fit it are found and accepted."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from migrations import baseline, history, ledger, repair, runner
from migrations.connection import session
from migrations.files import File
from migrations.history import Kind, Problem
from shared.errors import HistoryMismatch, MigrationError, Refused
from tests.migrations import catalog
from tests.migrations.conftest import Folder

A, B, C = "20260101000000_a", "20260102000000_b", "20260103000000_c"


@pytest.fixture
def applied(url: str, folder: Folder, said: list[str]) -> Folder:
    """Give a folder of three files that are applied: each makes the table of its letter."""
    for name in (A, B, C):
        folder.add(name, f"CREATE TABLE {name[-1]} (x int);", f"DROP TABLE {name[-1]};")
    runner.deploy(report=said.append, directory=folder.path)
    said.clear()
    return folder


def remove(folder: Folder, name: str) -> None:
    """Remove a file and its loader."""
    for path in folder.path.glob(f"{name}.*"):
        path.unlink()


def entries(folder: Folder) -> list[str]:
    """List the revisions that the ledger has as applied."""
    return [entry.revision for entry in runner.status(directory=folder.path).ledger.values() if entry.applied_at]


# -- what it tells ----------------------------------------------------------------------------------


def test_it_tells_who_applied_what_when_from_where_and_how_long_it_took(
    url: str, folder: Folder, use: Callable[..., None], said: list[str]
) -> None:
    use(VERCEL_DEPLOYMENT_ID="dpl_42")
    path = folder.add(A, "SELECT pg_sleep(0.2);")
    runner.deploy(report=said.append, directory=folder.path)

    (entry,) = runner.status(directory=folder.path).ledger.values()

    assert (entry.revision, entry.name) == (A[:14], f"{A}.sql")
    assert entry.applied_by == "app"
    assert entry.applied_from == f"db migrate on {os.uname().nodename} (dpl_42)"
    assert entry.applied_at is not None
    assert abs(datetime.now(UTC) - entry.applied_at) < timedelta(minutes=1)
    assert entry.duration_ms is not None
    assert entry.duration_ms >= 200
    # Line ends and a byte order mark do not count: git and editors change them.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert runner.status(directory=folder.path).problems == ()


def test_it_is_kept_with_the_revision_or_not_at_all(applied: Folder, said: list[str]) -> None:
    applied.add("20260104000000_d", "CREATE TABLE d (x int);\nSELECT 1/0;")
    with pytest.raises(MigrationError):
        runner.deploy(report=said.append, directory=applied.path)
    assert entries(applied) == [A[:14], B[:14], C[:14]]

    runner.downgrade(B, report=said.append, directory=applied.path)
    assert entries(applied) == [A[:14], B[:14]]


def test_stock_alembic_keeps_it(applied: Folder, url: str) -> None:
    config = Config(attributes={})
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(Path(history.__file__).parent))
    config.set_main_option("version_locations", str(applied.path))

    command.downgrade(config, "base")
    assert entries(applied) == []
    command.upgrade(config, "+2")
    assert entries(applied) == [A[:14], B[:14]]
    assert all(entry.duration_ms is not None for entry in runner.status(directory=applied.path).ledger.values())
    command.stamp(config, C[:14])
    assert entries(applied) == [A[:14], B[:14], C[:14]]
    command.stamp(config, A[:14])
    assert entries(applied) == [A[:14]]
    command.stamp(config, "base")
    assert entries(applied) == []
    command.stamp(config, "head", purge=True)
    assert entries(applied) == [A[:14], B[:14], C[:14]]

    (applied.path / f"{B}.sql").write_text((applied.path / f"{B}.sql").read_text() + "-- edited\n")
    with pytest.raises(CommandError, match=r"20260102000000_b\.sql was edited since it was applied"):
        command.downgrade(config, "-1")
    assert catalog.tables(url) == ["a", "alembic_version", "b"]


def test_what_alembic_says_and_what_is_there_must_agree(url: str, folder: Folder, said: list[str]) -> None:
    """Something of the database's own undoes the deploy at COMMIT: only a look from another connection shows it."""
    folder.add(
        A,
        """
        CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN DELETE FROM alembic_version; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER undo AFTER INSERT ON migration_ledger DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION undo();
        """,
    )

    with pytest.raises(MigrationError, match="ended without an error, and the database is at no revision"):
        runner.deploy(report=said.append, directory=folder.path)

    assert catalog.rows(url, "SELECT fingerprint FROM migration_state") == [(None,)]


# -- what does not fit ------------------------------------------------------------------------------


def edit(folder: Folder) -> None:
    path = folder.path / f"{B}.sql"
    path.write_text(path.read_text().replace("x int", "x bigint"))


def lose(folder: Folder) -> None:
    remove(folder, B)
    folder.add(C, "CREATE TABLE c (x int);", "DROP TABLE c;", parent=A[:14])


def merge_late(folder: Folder) -> None:
    folder.add("20260102120000_late", "CREATE TABLE late (x int);", parent=B[:14])
    folder.add(C, "CREATE TABLE c (x int);", "DROP TABLE c;")


def forget(folder: Folder) -> None:
    with session() as connection:
        connection.execute("DELETE FROM migration_ledger")


def set_back(folder: Folder) -> None:
    with session() as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", [B[:14]])


MISFITS: dict[Kind, tuple[Callable[[Folder], None], list[Problem], str]] = {
    "edited": (edit, [Problem("edited", B[:14], f"{B}.sql")], "Restore what was applied"),
    # The file behind a lost one has another parent: it was edited too.
    "missing": (
        lose,
        [Problem("missing", B[:14], f"{B}.sql"), Problem("edited", C[:14], f"{C}.sql")],
        "Restore the file that was removed",
    ),
    "late": (
        merge_late,
        [
            Problem("late", "20260102120000", "20260102120000_late.sql"),
            Problem("edited", C[:14], f"{C}.sql"),
        ],
        "db migrate rebase 20260102120000_late.sql",
    ),
    "unrecorded": (
        forget,
        [Problem("unrecorded", name[:14], f"{name}.sql") for name in (A, B, C)],
        "Record what is applied: db migrate repair",
    ),
    "undone": (set_back, [Problem("undone", C[:14], f"{C}.sql")], "alembic stamp"),
}


@pytest.mark.parametrize(("misfit", "problems", "advice"), MISFITS.values(), ids=MISFITS.keys())
def test_a_file_that_does_not_fit_is_named_and_accepted_only_knowingly(
    applied: Folder,
    url: str,
    said: list[str],
    misfit: Callable[[Folder], None],
    problems: list[Problem],
    advice: str,
) -> None:
    misfit(applied)
    applied.parent = C[:14]
    applied.add("20260104000000_d", "CREATE TABLE d (x int);")
    before = catalog.schema(url), catalog.contents(url)

    for run in (runner.deploy, runner.dry_run, runner.downgrade):
        with pytest.raises(HistoryMismatch) as caught:
            run(report=said.append, directory=applied.path)
        assert all(str(problem) in caught.value.message for problem in problems)
        assert advice in caught.value.solutions[0]
    assert (catalog.schema(url), catalog.contents(url)) == before
    assert list(runner.status(directory=applied.path).problems) == problems

    found = repair.look(directory=applied.path)
    assert found == problems
    assert len(repair.explain(found)) == len(problems)
    repair.repair(found, report=said.append, directory=applied.path)
    assert catalog.schema(url) == before[0]  # nothing was run
    assert repair.look(directory=applied.path) == []
    if misfit is set_back:
        catalog.rows(url, "DROP TABLE c")  # which is pending again
    runner.deploy(report=said.append, directory=applied.path)
    assert catalog.revision(url) == "20260104000000"
    assert "late" not in catalog.tables(url)


def test_what_was_not_asked_about_is_not_accepted(applied: Folder, said: list[str]) -> None:
    edit(applied)
    found = repair.look(directory=applied.path)
    forget(applied)

    with pytest.raises(Refused, match="has changed since you were asked"):
        repair.repair(found, report=said.append, directory=applied.path)

    assert entries(applied) == []


def test_the_newest_applied_file_may_be_forgotten_too(applied: Folder, url: str, said: list[str]) -> None:
    remove(applied, C)
    applied.parent = B[:14]
    applied.add("20260104000000_d", "CREATE TABLE d (x int);")
    with pytest.raises(HistoryMismatch, match=r"20260103000000_c\.sql is applied, and there is no such file"):
        runner.deploy(report=said.append, directory=applied.path)

    repair.repair(repair.look(directory=applied.path), report=said.append, directory=applied.path)

    assert catalog.revision(url) == B[:14]
    runner.deploy(report=said.append, directory=applied.path)
    assert catalog.tables(url) == ["a", "alembic_version", "b", "c", "d"]


def test_an_interrupted_file_whose_first_statements_were_edited_is_told(
    url: str, folder: Folder, said: list[str]
) -> None:
    folder.add(A, "SELECT 1;")
    none = "-- transaction: none"
    path = folder.add(B, "CREATE TABLE a (x int);\nSELECT 1/0;", header=none)
    with pytest.raises(MigrationError):
        runner.deploy(report=said.append, directory=folder.path)
    path.write_text(path.read_text().replace("CREATE TABLE a", "CREATE TABLE b").replace("1/0", "1"))

    for run in (runner.deploy, runner.dry_run):
        with pytest.raises(HistoryMismatch, match=r"took effect .* \(1 of its statements\)"):
            run(report=said.append, directory=folder.path)

    # In a transaction it would begin anew, and do twice what took effect.
    edited = path.read_text()
    path.write_text(edited.replace("CREATE TABLE b", "CREATE TABLE a").replace(none, ""))
    with pytest.raises(HistoryMismatch, match=r"took effect .* \(1 of its statements\)"):
        runner.deploy(report=said.append, directory=folder.path)
    path.write_text(edited)

    found = repair.look(directory=folder.path)
    assert [problem.kind for problem in found] == ["interrupted"]
    repair.repair(found, report=said.append, directory=folder.path)
    runner.deploy(report=said.append, directory=folder.path)
    assert catalog.tables(url) == ["a", "alembic_version", "b"]


def test_an_older_deployment_that_comes_back_need_not_have_the_newest_text(applied: Folder, said: list[str]) -> None:
    remove(applied, C)
    edit(applied)

    runner.deploy(report=said.append, directory=applied.path)
    assert said[-1].startswith("Warning: the database is at 20260103000000, ahead of this code")

    # But a file that was never applied belongs to no older deployment.
    remove(applied, B)
    applied.add("20260101120000_late", "SELECT 1;", parent=A[:14])
    with pytest.raises(HistoryMismatch, match="merged late"):
        runner.deploy(report=said.append, directory=applied.path)


# -- adopting ---------------------------------------------------------------------------------------


def test_a_database_of_other_origin_is_adopted(url: str, folder: Folder, said: list[str]) -> None:
    folder.add(A, "CREATE TABLE a (x int);")
    folder.add(B, "CREATE TABLE b (x int);")
    catalog.rows(url, "CREATE TABLE a (x int)")
    with pytest.raises(Refused, match=r"it lacks the table .*, the table users"):
        baseline.baseline(report=said.append, directory=folder.path)
    with pytest.raises(MigrationError, match="2025 is not a migration here"):
        baseline.baseline("2025", report=said.append, directory=folder.path)

    baseline.baseline(A, report=said.append, directory=folder.path)

    assert (catalog.revision(url), entries(folder)) == (A[:14], [A[:14]])
    assert catalog.rows(url, "SELECT environment FROM migration_state") == [("test",)]
    runner.deploy(report=said.append, directory=folder.path)
    assert catalog.tables(url) == ["a", "alembic_version", "b"]
    with pytest.raises(Refused, match=f"at the revision {B[:14]} already"):
        baseline.baseline(report=said.append, directory=folder.path)


def test_at_the_newest_revision_everything_must_be_there(
    migrated_database: str, use: Callable[..., None], said: list[str]
) -> None:
    use(DATABASE_URL=migrated_database, APP_ENV="test")
    before = catalog.schema(migrated_database)
    version_table = columns_of_version_table(migrated_database)
    catalog.rows(migrated_database, "DROP TABLE alembic_version, migration_ledger, migration_state")
    catalog.rows(migrated_database, "ALTER TABLE plans RENAME active TO offered")
    with pytest.raises(Refused, match=r"it lacks the column plans\.active\."):
        baseline.baseline(report=said.append)
    catalog.rows(migrated_database, "ALTER TABLE plans RENAME offered TO active")

    baseline.baseline(report=said.append)

    assert runner.status().state == "equal"
    assert runner.deploy(report=said.append).applied == ()
    assert catalog.schema(migrated_database) == before
    assert columns_of_version_table(migrated_database) == version_table


def columns_of_version_table(url: str) -> list[tuple[object, ...]]:
    """Describe alembic_version: ours must be as Alembic makes it."""
    return catalog.rows(
        url,
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, conname, pg_get_constraintdef(c.oid) "
        "FROM pg_attribute JOIN pg_constraint c ON conrelid = attrelid AND contype = 'p' "
        "WHERE attrelid = 'alembic_version'::regclass AND attnum > 0",
    )


def test_the_digest_of_rows_is_that_of_files(url: str) -> None:
    files = [File(Path(f"{n}.sql"), f"2026010100000{n}", None, f"{n}" * 64) for n in range(3)]
    with session() as connection:
        ledger.prepare(connection)
        for number in range(len(files) + 1):
            row = connection.execute(f"SELECT {ledger.DIGEST} FROM migration_ledger".encode()).fetchone()
            assert row == (ledger.digest(files[:number]),)
            for file in files[number : number + 1]:
                ledger.record(connection, file)


def test_the_tables_are_there_once(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        ledger.prepare(connection)
        ledger.prepare(connection)

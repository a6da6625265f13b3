"""Deploying: from nothing, again, in part, for show, and back."""

from collections.abc import Callable

import pytest

from migrations import files, runner
from shared.db.schema_head import REVISION, TABLES
from shared.errors import DatabaseAhead, HistoryMismatch, MigrationError, Refused
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project


def test_a_first_deploy_makes_everything_on_each_version(any_url: str, said: list[str]) -> None:
    result = runner.deploy(report=said.append)

    assert catalog.tables(any_url) == sorted([*TABLES, "alembic_version"])
    assert catalog.revision(any_url) == REVISION
    assert [m.name for m in result.applied] == [m.name for m in files.chain()]
    assert result.status.state == "equal"
    for migration in files.chain():
        assert any(line.startswith(f"Applied {migration.name} in ") for line in said)
    assert catalog.rows(any_url, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_a_second_deploy_changes_nothing(url: str, said: list[str]) -> None:
    runner.deploy(report=said.append)
    said.clear()
    before = catalog.schema(url), catalog.contents(url)

    result = runner.deploy(report=said.append)

    assert (catalog.schema(url), catalog.contents(url)) == before
    assert result.applied == ()
    assert said == ["Nothing to migrate"]


def test_only_what_is_pending_is_applied(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);", "DROP TABLE a;")
    runner.deploy(report=said.append, directory=folder.path)
    folder.add("20260102000000_b", "CREATE TABLE b (x int);", "DROP TABLE b;")
    assert [m.name for m in runner.status(directory=folder.path).pending] == ["20260102000000_b.sql"]

    result = runner.deploy(report=said.append, directory=folder.path)

    assert [m.name for m in result.applied] == ["20260102000000_b.sql"]
    assert catalog.tables(url) == ["a", "alembic_version", "b"]


def test_statements_are_run_as_they_stand(url: str, folder: Folder, said: list[str]) -> None:
    """What Alembic's op.execute and the driver would take for parameters is left alone."""
    folder.add(
        "20260101000000_a",
        """
        CREATE TABLE t (v text DEFAULT '100%', CHECK (v LIKE '%' AND v !~ ':name'));
        CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN format('%I %s;', 'a b', '%(x)s'); END $$;
        CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
        INSERT INTO t VALUES (f()), (E'it\\'s;');
        """,
    )

    runner.deploy(report=said.append, directory=folder.path)

    assert catalog.rows(url, "SELECT v, g() FROM t") == [('"a b" %(x)s;', 2), ("it's;", 2)]


def test_a_statement_that_cannot_run_in_a_transaction_runs_without_one(
    any_url: str, folder: Folder, said: list[str]
) -> None:
    folder.add("20260101000000_a", "CREATE TABLE t (x int); CREATE TYPE mood AS ENUM ('ok');", "DROP TABLE t;")
    folder.add(
        "20260102000000_b",
        "ALTER TYPE mood ADD VALUE 'sad';\nCREATE TABLE m (x mood DEFAULT 'sad');\nVACUUM t;\n"
        "CREATE INDEX CONCURRENTLY t_x_idx ON t (x);",
        "DROP INDEX CONCURRENTLY t_x_idx;\nDROP TABLE m;",
        header="-- transaction: none",
    )
    folder.add("20260103000000_c", "CREATE TABLE u (x int);", "DROP TABLE u;")

    runner.deploy(report=said.append, directory=folder.path)
    assert catalog.rows(any_url, "SELECT indisvalid FROM pg_index WHERE indrelid = 't'::regclass") == [(True,)]
    assert catalog.revision(any_url) == "20260103000000"

    runner.downgrade("20260101000000", report=said.append, directory=folder.path)
    assert catalog.tables(any_url) == ["alembic_version", "t"]
    assert catalog.rows(any_url, "SELECT 1 FROM pg_index WHERE indrelid = 't'::regclass") == []


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_dry_run_shows_the_statements_and_changes_nothing(
    url: str, use: Callable[..., None], said: list[str], how: str
) -> None:
    before = catalog.schema(url)

    if how == "variable":
        use(MIGRATION_DRYRUN="true")
        result = runner.deploy(report=said.append)
    else:
        result = runner.dry_run(report=said.append)

    assert catalog.schema(url) == before
    assert catalog.tables(url) == []
    assert len(result.status.pending) == len(files.chain())
    output = "\n".join(said)
    for migration in files.chain():
        assert migration.name in output
        for statement in migration.up.statements:
            assert statement.text in output
    assert "Would add: admin user" in output


def test_a_dry_run_of_a_downgrade_changes_nothing(url: str, use: Callable[..., None], said: list[str]) -> None:
    runner.deploy(report=said.append)
    said.clear()
    before = catalog.schema(url), catalog.contents(url)
    use(MIGRATION_DRYRUN="true")

    runner.downgrade("base", report=said.append)

    assert (catalog.schema(url), catalog.contents(url)) == before
    assert len(said) == len(files.chain())


def test_down_to_base_and_up_again(any_url: str, said: list[str]) -> None:
    runner.deploy(report=said.append)
    migrated = catalog.schema(any_url)

    result = runner.downgrade("base", report=said.append)
    assert catalog.tables(any_url) == ["alembic_version"]
    assert catalog.schema(any_url) == []
    assert result.status.current is None
    assert len(result.undone) == len(files.chain())

    runner.deploy(report=said.append)
    assert catalog.schema(any_url) == migrated


def test_down_goes_one_back_or_to_a_file(url: str, folder: Folder, said: list[str]) -> None:
    for day, name in enumerate("abcd", start=1):
        folder.add(f"2026010{day}000000_{name}", f"CREATE TABLE {name} (x int);", f"DROP TABLE {name};")
    runner.deploy(report=said.append, directory=folder.path)

    runner.downgrade(report=said.append, directory=folder.path)
    assert catalog.tables(url) == ["a", "alembic_version", "b", "c"]

    runner.downgrade("20260101000000_a.sql", report=said.append, directory=folder.path)
    assert catalog.tables(url) == ["a", "alembic_version"]

    with pytest.raises(MigrationError, match="20260103000000 is not an applied migration"):
        runner.downgrade("20260103000000", report=said.append, directory=folder.path)


def test_a_file_without_a_way_back_stops_a_downgrade_before_it_begins(
    url: str, folder: Folder, said: list[str]
) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);", "")
    folder.add("20260102000000_b", "CREATE TABLE b (x int);", "DROP TABLE b;")
    runner.deploy(report=said.append, directory=folder.path)

    with pytest.raises(MigrationError, match=r"20260101000000_a\.sql cannot be taken back"):
        runner.downgrade("base", report=said.append, directory=folder.path)

    assert catalog.tables(url) == ["a", "alembic_version", "b"]


def test_production_may_ask_to_be_forced(url: str, use: Callable[..., None], folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);", "DROP TABLE a;")
    use(APP_ENV="production", MIGRATION_REQUIRE_FORCE="true", ADMIN_INITIAL_PASSWORD="long enough to do")

    with pytest.raises(Refused, match="MIGRATION_REQUIRE_FORCE is true and the environment is production"):
        runner.deploy(report=said.append, directory=folder.path)
    assert catalog.tables(url) == []

    runner.deploy(report=said.append, directory=folder.path, force=True)
    assert catalog.tables(url) == ["a", "alembic_version"]

    # With nothing to migrate nothing needs force: every deploy runs this.
    runner.deploy(report=said.append, directory=folder.path)
    with pytest.raises(Refused):
        runner.downgrade(report=said.append, directory=folder.path)
    use(MIGRATION_FORCE="true")
    runner.downgrade(report=said.append, directory=folder.path)
    assert catalog.tables(url) == ["alembic_version"]


def test_development_need_not_be_forced(url: str, use: Callable[..., None], folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    use(MIGRATION_REQUIRE_FORCE="true")

    runner.deploy(report=said.append, directory=folder.path)

    assert catalog.tables(url) == ["a", "alembic_version"]


def test_a_database_ahead_of_the_code_is_left_alone(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    folder.add("20260102000000_b", "CREATE TABLE b (x int);")
    runner.deploy(report=said.append, directory=folder.path)
    for file in folder.path.glob("20260102*"):
        file.unlink()
    said.clear()

    result = runner.deploy(report=said.append, directory=folder.path)

    assert result.status.state == runner.status(directory=folder.path).state == "ahead"
    assert said == [
        "Warning: the database is at 20260102000000, ahead of this code (newest file: 20260101000000_a.sql). "
        "Nothing was migrated."
    ]
    with pytest.raises(MigrationError, match="ahead of this code"):
        runner.downgrade(report=said.append, directory=folder.path)
    for run in (runner.deploy, runner.dry_run):
        with pytest.raises(DatabaseAhead, match=r"at 20260102000000, ahead of this code \(newest file"):
            run(report=said.append, directory=folder.path, strict=True)


def test_a_revision_without_its_file_is_an_error(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    runner.deploy(report=said.append, directory=folder.path)
    for file in folder.path.glob("20260101*"):
        file.unlink()
    folder.add("20260102000000_b", parent="none")

    with pytest.raises(HistoryMismatch, match=r"20260101000000_a\.sql is applied, and there is no such file"):
        runner.deploy(report=said.append, directory=folder.path)


def test_two_revisions_at_once_are_an_error(url: str, said: list[str]) -> None:
    runner.deploy(report=said.append)
    catalog.rows(url, "INSERT INTO alembic_version VALUES ('20260101000000')")

    with pytest.raises(HistoryMismatch, match="at 2 revisions at once: 20260101000000, 2026"):
        runner.deploy(report=said.append)


def test_nothing_pending_needs_neither_alembic_nor_sqlalchemy(url: str, project: Project, said: list[str]) -> None:
    runner.deploy(report=said.append)
    (project.path / "probe.py").write_text(
        "import sys; from migrations.__main__ import main; assert main(['deploy']) == 0; "
        "print(sorted({'alembic', 'sqlalchemy', 'argon2'} & set(sys.modules)))"
    )

    done = project.run("probe")

    assert done.stdout == "Nothing to migrate\n[]\n", done.stderr


def test_a_failing_seed_is_named(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE plans (code text);")

    with pytest.raises(MigrationError, match='essential data failed: column "name" of relation "plans"'):
        runner.deploy(report=said.append, directory=folder.path)

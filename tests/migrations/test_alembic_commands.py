"""Stock Alembic, run as a person would run it, in a copy of the project whose path has a space and a percent sign."""

from datetime import UTC, datetime

import psycopg
import pytest

from migrations import files, repair, runner
from migrations.files import LOADER
from shared.errors import HistoryMismatch
from tests.migrations import catalog
from tests.migrations.conftest import Project

HEAD = files.chain()[-1].revision


def test_upgrade_current_check_downgrade(url: str, project: Project, said: list[str]) -> None:
    upgraded = project.run("alembic", "upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    assert all(f"-> {migration.revision}, {migration.description}" in upgraded.stderr for migration in files.chain())

    assert project.run("alembic", "current").stdout == f"{HEAD} (head)\n"
    checked = project.run("alembic", "check")
    assert (checked.returncode, checked.stdout) == (0, "No new upgrade operations detected.\n"), checked.stderr
    assert runner.status().state == "equal"

    stock = catalog.schema(url)
    assert project.run("alembic", "downgrade", "base").returncode == 0
    assert catalog.tables(url) == ["alembic_version"]
    runner.deploy(report=said.append)
    assert catalog.schema(url) == stock


def test_history_needs_no_database(project: Project) -> None:
    done = project.run("alembic", "history", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    lines = done.stdout.splitlines()
    assert [line.split(" -> ")[1][:14] for line in lines] == [m.revision for m in reversed(files.chain())]


def test_commands_that_look_change_nothing(url: str, project: Project) -> None:
    assert project.run("alembic", "current").returncode == 0
    behind = project.run("alembic", "check")

    assert "Target database is not up to date" in behind.stdout + behind.stderr
    assert catalog.tables(url) == []


def test_sql_output_is_the_files_as_they_stand_and_makes_the_same_database(
    url: str, project: Project, said: list[str]
) -> None:
    project.versions.add(
        "20270101000000_odd",
        "CREATE TABLE odd (v text DEFAULT '100% :x', CHECK (v <> '%(name)s'));\n\tCREATE INDEX i ON odd (v); -- last",
        "DROP TABLE odd;",
    )
    project.versions.add(
        "20270102000000_odder",
        "CREATE INDEX CONCURRENTLY j ON odd (v);",
        "DROP INDEX j;",
        header="-- transaction: none",
    )

    done = project.run("alembic", "upgrade", "head", "--sql", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert done.returncode == 0, done.stderr
    for migration in files.chain(project.versions.path):
        assert migration.up.text.strip() in done.stdout
    # The script is what psql would be given; the concurrent build stands outside of its transactions.
    before, _, after = done.stdout.partition("CREATE INDEX CONCURRENTLY")
    assert before.rstrip().endswith("COMMIT;")
    assert after.lstrip().split("\n\n")[1] == "BEGIN;"
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in done.stdout.split(";\n\n"):
            connection.execute(statement.encode())
    scripted = catalog.schema(url)
    assert catalog.revision(url) == "20270102000000"
    # Nobody told the ledger.
    with pytest.raises(HistoryMismatch, match="the ledger does not know it"):
        runner.deploy(report=said.append, directory=project.versions.path)
    repair.repair(repair.look(directory=project.versions.path), report=said.append, directory=project.versions.path)
    runner.downgrade("base", report=said.append, directory=project.versions.path)
    runner.deploy(report=said.append, directory=project.versions.path)
    assert catalog.schema(url) == scripted


def test_downgrade_as_sql(project: Project) -> None:
    done = project.run("alembic", "downgrade", f"{HEAD}:base", "--sql")

    assert done.returncode == 0, done.stderr
    for migration in files.chain():
        assert migration.down.text.strip() in done.stdout


def test_revision_writes_a_migration_file(url: str, project: Project) -> None:
    before = datetime.now(UTC).strftime("%Y%m%d%H%M%S")

    done = project.run("alembic", "revision", "-m", 'Add nickname: 100% it\'s "needed"')

    assert done.returncode == 0, done.stderr
    (path,) = set(project.versions.path.glob("*nickname*.sql"))
    migration = files.chain(project.versions.path)[-1]
    assert path == migration.path
    assert before <= migration.revision <= datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    assert migration.description == 'Add nickname: 100% it\'s "needed"'
    assert migration.parent == HEAD
    assert path.with_suffix(".py").read_text() == LOADER
    assert f'REVISION = "{migration.revision}"' in (project.path / "shared/db/schema_head.py").read_text()
    assert project.run("alembic", "upgrade", "head").returncode == 0
    assert catalog.revision(url) == migration.revision


def test_autogenerate_writes_sql_that_makes_database_and_metadata_agree(url: str, project: Project) -> None:
    assert project.run("alembic", "upgrade", "head").returncode == 0
    with (project.path / "shared/db/schema.py").open("a") as schema:
        schema.write(
            "Table(\n"
            "    'notes', metadata, _id(),\n"
            "    Column('body', Text, server_default='100% :x', comment='a % and a :colon'),\n"
            "    Column('kind', Text, server_default=text(\"'5% \\\\:y'::text\")),\n"
            "    CheckConstraint(\"body LIKE 'a%' AND body <> '\\\\:b' AND kind ~ '[[:space:]]'\", name='body'),\n"
            ")\n"
            "users.append_column(Column('nickname', Text))\n"
            "Index('users_nickname_idx', users.c.nickname, postgresql_where=text(\"nickname LIKE '%a'\"))\n"
        )
    assert "New upgrade operations detected" in project.run("alembic", "check").stdout

    done = project.run("alembic", "revision", "--autogenerate", "-m", "add notes")

    assert done.returncode == 0, done.stderr
    up = files.chain(project.versions.path)[-1].up.text
    assert "DEFAULT '100% :x'" in up
    assert "DEFAULT '5% :y'::text" in up
    assert "CHECK (body LIKE 'a%' AND body <> ':b' AND kind ~ '[[:space:]]')" in up
    assert "IS 'a % and a :colon'" in up
    assert "WHERE nickname LIKE '%a'" in up
    assert '", "notes")' in (project.path / "shared/db/schema_head.py").read_text()
    migrated = catalog.schema(url)
    assert project.run("alembic", "upgrade", "head").returncode == 0
    checked = project.run("alembic", "check")
    assert checked.stdout == "No new upgrade operations detected.\n", checked.stderr
    assert project.run("alembic", "downgrade", "-1").returncode == 0
    assert catalog.schema(url) == migrated


def test_a_message_that_makes_no_file_name_is_told(url: str, project: Project) -> None:
    done = project.run("alembic", "revision", "-m", "füge hinzu")

    assert "is not named as a migration" in done.stderr
    assert "Traceback" not in done.stderr
    (left,) = set(project.versions.path.glob("*hinzu*"))
    assert f"Delete {left.name}" in done.stderr
    assert left.name in project.run("alembic", "upgrade", "head").stdout


def test_a_failing_file_is_told_as_ours_is(url: str, project: Project) -> None:
    project.versions.add("20270101000000_bad", "CREATE TABLE half (x int);\nSELECT 1/0;")

    done = project.run("alembic", "upgrade", "head")

    assert done.returncode != 0
    assert "20270101000000_bad.sql failed in line 5. It was rolled back" in done.stderr + done.stdout
    assert "(SQLSTATE 22012)" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert "half" not in catalog.tables(url)
    assert catalog.revision(url) == HEAD


def test_malformed_files_are_told_as_ours_are(url: str, project: Project) -> None:
    project.versions.write("20270101000000_bad", f"-- Why.\n-- parent: {HEAD}\nSELECT 'x;\n-- down\n")

    for command in (("history",), ("upgrade", "head")):
        done = project.run("alembic", *command)
        assert done.returncode != 0
        assert "20270101000000_bad.sql, line 3: a string constant is opened" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
    assert catalog.tables(url) == []


def test_two_heads_are_told_by_stock_upgrade(url: str, project: Project) -> None:
    project.versions.add("20270101000000_a")
    project.versions.add("20270102000000_b", parent=HEAD)

    done = project.run("alembic", "upgrade", "heads")

    assert "Two heads: 20270101000000_a.sql and 20270102000000_b.sql" in done.stderr + done.stdout
    assert catalog.tables(url) == []

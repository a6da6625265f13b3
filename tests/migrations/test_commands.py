"""`db migrate` and `python -m migrations`, run as people and build hooks do: output and exit codes."""

import json
import os
import pty
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner, Result

from migrations import files, lock, runner
from ops import migrate
from shared.errors import MigrationError, Refused
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project

HEAD = files.chain()[-1].revision
NOWHERE = "postgresql://u:hunter2@127.0.0.1:1/d"


def run(*arguments: str, stdin: str | None = None) -> Result:
    """Run `db migrate ...` in this process."""
    return CliRunner().invoke(migrate.app, arguments, input=stdin)


def test_db_migrate_applies_once(url: str, project: Project) -> None:
    first = project.db("migrate")
    assert (first.returncode, first.stderr) == (0, "")
    assert f"The database is at {HEAD}\n" in first.stdout
    assert catalog.revision(url) == HEAD

    assert (run().exit_code, run().output) == (0, "Nothing to migrate\n")


def test_status_tells_what_is_pending_applied_and_how(url: str) -> None:
    behind = run("status").output
    assert f"{len(files.scan())} pending: db migrate applies them." in behind
    assert "It carries no environment tag yet." in behind
    assert all(migration.name in behind for migration in files.scan())

    run()
    equal = run("status").output
    assert "The database is up to date." in equal
    assert "Its environment is test." in equal
    assert equal.count(f"{datetime.now(UTC):%Y-%m-%d} ") == len(files.scan())

    catalog.rows(url, f"UPDATE migration_ledger SET checksum = 'other' WHERE revision = '{HEAD}'")
    edited = run("status").output
    assert f"{files.scan()[-1].name} was edited since it was applied." in edited
    assert edited.count("applied") > edited.count("edited") > 0


def test_status_as_json(url: str) -> None:
    run()
    run("down")

    told = json.loads(run("status", "--json").output)

    *applied, last = files.scan()
    assert (told["state"], told["current"], told["environment"]) == ("behind", applied[-1].revision, "test")
    assert [entry["name"] for entry in told["applied"]] == [migration.name for migration in applied]
    assert told["pending"] == [{"name": last.name}]
    assert told["problems"] == []
    first = told["applied"][0]
    assert first.keys() == {"name", "applied_at", "applied_by", "applied_from", "duration_ms", "statements_done"}
    assert datetime.fromisoformat(first["applied_at"]).tzinfo is not None


def test_a_file_that_was_partly_applied_shows_in_the_status(url: str, folder: Folder) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);\nSELECT 1/0;", header="-- transaction: none")
    with pytest.raises(MigrationError):
        runner.deploy(report=lambda _: None, directory=folder.path)

    found = runner.status(directory=folder.path)

    assert migrate.as_object(found)["pending"] == [
        {"name": "20260101000000_a.sql", "applied_at": None, "statements_done": 1, "duration_ms": None}
        | {"applied_by": "app", "applied_from": found.ledger["20260101000000"].applied_from}
    ]


def test_dry_run_and_down(url: str) -> None:
    shown = run("--dry-run")
    assert "CREATE TABLE users (" in shown.output
    assert catalog.tables(url) == []

    run()
    assert run("down", "--to", "base").exit_code == 0
    assert catalog.tables(url) == ["alembic_version"]


def test_repair_asks_first(url: str, use: Callable[..., None]) -> None:
    run()
    assert run("repair").output == "Nothing to repair\n"
    catalog.rows(url, "DELETE FROM migration_ledger")

    asked = run("repair")
    assert asked.output.count("is recorded as applied (unrecorded)") == len(files.scan())
    assert isinstance(asked.exception, Refused)  # nobody is at the terminal
    use(MIGRATION_DRYRUN="true")
    assert run("repair", "--yes").exit_code == 0
    assert len(runner.status().problems) == len(files.scan())
    use(MIGRATION_DRYRUN="")

    assert f"Accepted {files.scan()[-1].name}\n" in run("repair", "--yes").output
    assert runner.status().problems == ()
    assert run("baseline").exception is not None


@pytest.mark.parametrize(("answer", "code", "left"), [("repair\n", 0, 0), ("yes\n", 1, 1)])
def test_at_a_terminal_the_word_must_be_typed(url: str, project: Project, answer: str, code: int, left: int) -> None:
    ours, theirs = pty.openpty()
    catalog.rows(url, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    catalog.rows(url, f"INSERT INTO alembic_version VALUES ('{files.scan()[0].revision}')")
    os.write(ours, answer.encode())

    done = project.db("migrate", "repair", stdin=theirs)

    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    assert len(runner.status().problems) == left


def test_exit_codes(url: str, project: Project) -> None:
    """The numbers of docs/DATABASE.md, and one message each, without a traceback or the password."""

    def deploy(*options: str, program: str = "migrations", **environment: str) -> tuple[int, str]:
        done = project.run(program, "deploy", *options, **environment)
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr + done.stdout
        assert done.returncode == 0 or done.stderr.startswith("Error: "), done.stderr
        return done.returncode, done.stderr + done.stdout

    def told(code: int, words: str, found: tuple[int, str]) -> None:
        assert (found[0], words in found[1]) == (code, True), found

    production = {"APP_ENV": "production"}
    told(3, "DATABASE_URL", deploy(DATABASE_URL="mysql://u:hunter2@h/d"))
    told(4, "Cannot connect to postgresql://u:********@127.0.0.1:1/d", deploy(DATABASE_URL=NOWHERE))
    told(8, "MIGRATION_FORCE=true", deploy(**production, MIGRATION_REQUIRE_FORCE="true"))
    told(3, "ADMIN_INITIAL_PASSWORD is not set", deploy(**production))
    told(11, "DIRECT_URL", deploy(DATABASE_URL=f"{url}?pgbouncer=true"))
    (project.path / "impatient.py").write_text(
        "import sys\nfrom migrations import lock\nlock.WAIT = 0.1\n"
        "from migrations.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    with lock.taken("db migrate", report=lambda _: None):
        told(7, "SELECT pg_terminate_backend(", deploy(program="impatient"))
    assert catalog.tables(url) == []

    bad = project.versions.add("20270101000000_bad", "SELECT 1/0;")
    told(6, "20270101000000_bad.sql failed in line 4", deploy())
    told(12, "the database is tagged test", deploy(**production))
    told(0, "the database is tagged test", deploy(APP_ENV="preview"))
    for path in (bad, bad.with_suffix(".py")):
        path.unlink()
    newest = files.scan(project.versions.path)[-1].path
    newest.write_text(newest.read_text() + "-- edited\n")
    told(13, f"{newest.name} was edited", deploy())
    for path in (newest, newest.with_suffix(".py")):
        path.unlink()
    told(14, "ahead of this code", deploy("--strict"))
    told(0, "ahead of this code", deploy())


def test_the_command_line_exits_with_the_same(project: Project) -> None:
    done = project.db("migrate", DATABASE_URL=f"{NOWHERE}?pgbouncer=true")

    assert (done.returncode, "hunter2" in done.stderr) == (11, False)
    assert done.stderr.startswith("Error: DATABASE_URL leads to a pooler")


def test_a_build_without_database_url_says_what_to_set(project: Project) -> None:
    done = project.run("migrations", "deploy", VERCEL_ENV="production")

    assert done.returncode == 3
    assert done.stderr.startswith("Error: DATABASE_URL is not set, and the environment is production.\n  - Set it to ")


def test_force_and_dry_run_of_the_build_hook(url: str, project: Project) -> None:
    variables = {
        "APP_ENV": "production",
        "MIGRATION_REQUIRE_FORCE": "true",
        "ADMIN_INITIAL_PASSWORD": "correct horse battery",
    }
    shown = project.run("migrations", "deploy", "--dry-run", **variables)
    assert "Would apply" in shown.stdout
    assert catalog.tables(url) == []

    assert project.run("migrations", "deploy", "--force", **variables).returncode == 0
    assert catalog.revision(url) == HEAD


def test_an_unknown_command_of_the_build_hook_is_a_usage_error(project: Project) -> None:
    done = project.run("migrations", "explode")

    assert done.returncode == 2
    assert "usage: python -m migrations" in done.stderr

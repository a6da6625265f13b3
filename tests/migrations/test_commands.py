"""`db migrate` and `python -m migrations`, run as people and build hooks do: output and exit codes."""

import json

import pytest

from migrations import files
from tests.migrations import catalog
from tests.migrations.conftest import Project

HEAD = files.chain()[-1].revision
NOWHERE = "postgresql://u:hunter2@127.0.0.1:1/d"


def test_db_migrate_applies_once_and_status_tells(url: str, project: Project) -> None:
    behind = project.db("migrate", "status")
    assert f"{len(files.chain())} pending: db migrate applies them." in behind.stdout
    assert all(migration.name in behind.stdout for migration in files.chain())

    first = project.db("migrate")
    assert (first.returncode, first.stderr) == (0, "")
    assert f"The database is at {HEAD}\n" in first.stdout
    assert catalog.revision(url) == HEAD

    second = project.db("migrate")
    assert (second.returncode, second.stdout) == (0, "Nothing to migrate\n")
    assert "The database is up to date." in project.db("migrate", "status").stdout


def test_status_as_json(url: str, project: Project) -> None:
    project.db("migrate")
    project.db("migrate", "down")

    told = json.loads(project.db("migrate", "status", "--json").stdout)

    names = [migration.name for migration in files.chain()]
    assert told == {
        "state": "behind",
        "current": files.chain()[-2].revision,
        "applied": names[:-1],
        "pending": names[-1:],
    }


def test_dry_run_and_down(url: str, project: Project) -> None:
    shown = project.db("migrate", "--dry-run")
    assert "CREATE TABLE users (" in shown.stdout
    assert catalog.tables(url) == []

    project.db("migrate")
    down = project.db("migrate", "down", "--to", "base")
    assert (down.returncode, down.stderr) == (0, "")
    assert catalog.tables(url) == ["alembic_version"]


@pytest.mark.parametrize("command", ["db", "python -m migrations"])
def test_exit_codes(url: str, project: Project, command: str) -> None:
    """The numbers of docs/DATABASE.md, and one message each, without a traceback or the password."""

    def run(**environment: str) -> tuple[int, str]:
        if command == "db":
            done = project.db("migrate", **environment)
        else:
            done = project.run("migrations", "deploy", **environment)
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr + done.stdout
        assert done.returncode == 0 or done.stderr.startswith("Error: "), done.stderr
        return done.returncode, done.stderr

    code, message = run(DATABASE_URL="mysql://u:hunter2@h/d")
    assert (code, "DATABASE_URL" in message) == (3, True)
    code, message = run(DATABASE_URL=NOWHERE)
    assert (code, "Cannot connect to postgresql://u:********@127.0.0.1:1/d" in message) == (4, True)
    code, message = run(APP_ENV="production", MIGRATION_REQUIRE_FORCE="true")
    assert (code, "MIGRATION_FORCE=true" in message) == (8, True)
    code, message = run(APP_ENV="production")
    assert (code, "ADMIN_INITIAL_PASSWORD is not set" in message) == (3, True)
    assert catalog.tables(url) == []
    project.versions.add("20270101000000_bad", "SELECT 1/0;")
    code, message = run()
    assert (code, "20270101000000_bad.sql failed in line 4" in message) == (6, True)
    assert message.count("(SQLSTATE 22012)") == 1


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

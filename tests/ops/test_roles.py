"""`db roles`: the application's role reads and writes rows, and changes no table; row-level security as documented."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from psycopg import errors, sql
from typer.testing import CliRunner

from ops import roles
from shared import db
from shared.db.url import DatabaseURL
from shared.errors import DatabaseError, Refused
from shared.settings import reset_settings
from tests.servers.postgres import APP, Postgres
from tests.shared.db.watching import name_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "SECURITY.md").read_text("utf-8")


class Split:
    """A migrated database whose owner may make roles, and the command on it."""

    def __init__(self, postgres: Postgres, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.postgres, self.owner_url, self.folder = postgres, url, folder
        self.database = name_of(url)
        self.app = f"{self.database}_app"
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(roles, "ROOT", folder)
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("APP_ENV", "test")
        reset_settings()

    def run(self, *arguments: str) -> str:
        """Run the command and return what it prints."""
        app = typer.Typer()
        app.command()(roles.run)
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    def app_url(self) -> str:
        """Return what the command wrote for the application."""
        (file,) = (self.folder / ".data").glob("role-*.url")
        assert file.stat().st_mode & 0o777 == 0o600
        return file.read_text("utf-8").strip()

    def connect(self, url: str) -> psycopg.Connection[Any]:
        """Connect as the role of a URL."""
        return psycopg.connect(**DatabaseURL.parse(url).connect_kwargs(), autocommit=True)  # type: ignore[arg-type]

    def owner(self, statement: str) -> None:
        """Run a statement as the owner."""
        with self.connect(self.owner_url) as connection:
            connection.execute(statement.encode())


@pytest.fixture
def split(
    postgres: Postgres, migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Split]:
    """Return a migrated database; its owner has CREATEROLE meanwhile."""
    split = Split(postgres, migrated_database, tmp_path, monkeypatch)
    postgres.admin().execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(APP)))
    yield split
    db.close_db(grace=0)
    with psycopg.connect(postgres.admin_url(split.database), autocommit=True) as connection:
        name = sql.Identifier(split.app)
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [split.app]).rowcount:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
            connection.execute(sql.SQL("DROP ROLE {}").format(name))
    postgres.admin().execute(sql.SQL("ALTER ROLE {} NOCREATEROLE").format(sql.Identifier(APP)))


def test_the_application_reads_and_writes_rows_and_changes_no_table(split: Split) -> None:
    said = split.run("--apply")
    url = split.app_url()
    assert (DatabaseURL.parse(url).password or "x") not in said
    split.owner("CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY, n int)")  # by a later migration

    with split.connect(url) as app:
        assert app.execute("SELECT current_user::text").fetchone() == (split.app,)
        app.execute("INSERT INTO later (n) VALUES (1), (2)")
        app.execute("UPDATE later SET n = 3 WHERE n = 1")
        app.execute("DELETE FROM later WHERE n = 2")
        assert app.execute("SELECT n FROM later").fetchall() == [(3,)]
        assert app.execute("SELECT count(*) FROM plans").fetchone() != (0,)
        app.execute("SELECT version_num FROM alembic_version")
        assert app.execute("SHOW statement_timeout").fetchone() != ("0",)
        for statement in (
            "CREATE TABLE mine ()",
            "CREATE TEMPORARY TABLE mine ()",
            "CREATE SCHEMA mine",
            "ALTER TABLE later ADD COLUMN m int",
            "DROP TABLE later",
            "TRUNCATE later",
            "CREATE INDEX ON later (n)",
            "UPDATE alembic_version SET version_num = '1'",
            "DELETE FROM migration_ledger",
            "UPDATE migration_state SET environment = 'test'",
            "CREATE ROLE another",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                app.execute(statement.encode())


def test_it_may_run_again_and_takes_what_is_too_much(split: Split) -> None:
    split.run("--apply")
    url = split.app_url()
    split.owner(f'GRANT UPDATE ON alembic_version TO "{split.app}"')
    split.postgres.admin().execute(f"ALTER ROLE \"{split.app}\" PASSWORD 'rotated'".encode())
    assert "stays as it is" in split.run("--apply")
    assert split.app_url() == url
    url = url.replace(DatabaseURL.parse(url).password or "x", "rotated")
    with split.connect(url) as app, pytest.raises(errors.InsufficientPrivilege):
        app.execute("UPDATE alembic_version SET version_num = '1'")


def test_what_is_printed_is_what_would_run(split: Split) -> None:
    for statement in split.run().splitlines():
        assert statement.endswith(";")
        split.owner(statement)
    with split.connect(split.owner_url) as owner:
        assert owner.execute("SELECT has_table_privilege(%s, 'plans', 'INSERT')", [split.app]).fetchone() == (True,)


def test_an_administrator_may_split_for_the_owner(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    split.postgres.admin().execute(sql.SQL("ALTER ROLE {} NOCREATEROLE").format(sql.Identifier(APP)))
    monkeypatch.setenv("DIRECT_URL", split.postgres.admin_url(split.database))
    reset_settings()
    assert f"leave DIRECT_URL to {APP}" in split.run("--apply", "--owner", APP)
    split.owner("CREATE TABLE later (n int)")
    with split.connect(split.app_url()) as app:
        app.execute("INSERT INTO later (n) VALUES (1)")


def test_one_role_for_both_is_no_split_and_one_without_rights_cannot_make_it(split: Split) -> None:
    with pytest.raises(Refused, match="is the role that migrates"):
        split.run("--app", APP)
    split.postgres.admin().execute(sql.SQL("ALTER ROLE {} NOCREATEROLE").format(sql.Identifier(APP)))
    with pytest.raises(Refused, match="may not do this"):
        split.run("--apply")


def test_row_level_security_as_the_document_shows_it(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    (migration,) = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    (endpoint,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    split.run("--apply")
    split.owner(migration)
    split.owner("INSERT INTO notes (user_id, body) VALUES (1, 'of one'), (2, 'of two')")
    monkeypatch.setenv("DATABASE_URL", split.app_url())
    reset_settings()

    def notes_of(user_id: int) -> list[str]:
        names: dict[str, Any] = {"db": db, "user_id": user_id}
        exec(endpoint, names)
        return [row["body"] for row in names["notes"]]

    assert notes_of(1) == ["of one"]
    assert notes_of(2) == ["of two"]
    assert db.fetch_all("SELECT * FROM notes") == [], "nobody is set after the transaction"
    with db.transaction() as tx:
        tx.execute("SELECT set_config('app.user_id', '1', true)")
        with pytest.raises(DatabaseError, match="row-level security"), tx.savepoint():
            tx.execute("INSERT INTO notes (user_id, body) VALUES (2, 'of another')")

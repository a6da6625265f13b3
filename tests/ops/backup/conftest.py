"""Fixtures of the backups' tests: a filled database, one backup of it that all may read, and `db` on any database."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ops.backup import command, dump
from shared.settings import reset_settings
from tests.ops.backup import database as contents
from tests.servers.postgres import Postgres

Db = Callable[..., str]


def _app() -> typer.Typer:
    app = typer.Typer()
    app.add_typer(command.app, name="backup")
    app.command("backups")(command.backups)
    app.command("restore")(command.restore)
    app.command("basebackup")(command.base_backup)
    return app


@pytest.fixture
def db(monkeypatch: pytest.MonkeyPatch) -> Db:
    """Run `db` on a database: `db(url, "restore", ...)` returns what it printed, and raises its error."""

    def run(url: str, *arguments: str) -> str:
        monkeypatch.setenv("DATABASE_URL", url)
        reset_settings()
        result = CliRunner().invoke(_app(), arguments, catch_exceptions=True)
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


@pytest.fixture(scope="session")
def filled(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a database with one of everything; it is shared: do not change it."""
    with postgres.database() as name:
        contents.fill(postgres, postgres.url(name))
        yield postgres.url(name)


@pytest.fixture(scope="session")
def _backup(filled: str, run_directory: Path) -> Path:
    folder = run_directory / "backup"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DATABASE_URL", filled)
        reset_settings()
        where, _ = dump.create(str(folder), report=lambda _: None)
    reset_settings()
    return Path(where)


@pytest.fixture
def backup(_backup: Path, tmp_path: Path) -> Path:
    """Return a backup of `filled`, with its manifest, in a folder of its own."""
    folder = tmp_path / "backups"
    folder.mkdir()
    shutil.copy(_backup, folder)
    shutil.copy(f"{_backup}.json", folder)
    return folder / _backup.name

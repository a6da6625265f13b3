"""Fixtures of the migrations' tests: folders of migration files, and copies of the project to run commands in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from migrations import runner
from migrations.files import LOADER
from shared.settings import reset_settings
from tests.servers.postgres import Postgres

ROOT = Path(__file__).parent.parent.parent
PRODUCTION = {"APP_ENV": "production", "ADMIN_INITIAL_PASSWORD": "correct horse battery"}


class Folder:
    """A folder of migration files, written in order; each `add` follows the one before unless told otherwise."""

    def __init__(self, path: Path, parent: str = "none") -> None:
        self.path = path
        self.parent = parent
        self.path.mkdir(exist_ok=True)

    def add(
        self,
        name: str,
        up: str = "SELECT 1;",
        down: str = "SELECT 1;",
        *,
        parent: str | None = None,
        header: str = "",
    ) -> Path:
        """Write `name` (timestamp, underscore, words) and its loader."""
        text = f"-- Test: {name}.\n-- parent: {parent or self.parent}\n{header}\n{up}\n\n-- down\n\n{down}\n"
        return self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        """Write a file with this text, whatever it is, and its loader."""
        path = self.path / f"{name}.sql"
        path.write_text(text, "utf-8")
        path.with_suffix(".py").write_text(LOADER, "utf-8")
        self.parent = name[:14]
        return path


class Project:
    """A copy of what the commands need, with migration files that a test may break."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for part in ("migrations", "shared"):
            shutil.copytree(ROOT / part, path / part)
        shutil.copy(ROOT / "pyproject.toml", path)
        for part in ("functions", "ops", "app.py"):
            (path / part).symlink_to(ROOT / part)
        self.versions = Folder(path / "migrations" / "versions")
        self.versions.parent = max(file.name[:14] for file in self.versions.path.glob("*.sql"))

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start `python -m ...` in the copy, with output joined to errors."""
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.path,
            env={**os.environ, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `python -m ...` in the copy to its end; stdout and stderr apart."""
        return self._run("-m", *command, environment=environment)

    def db(self, *arguments: str, stdin: int | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `db ...` in the copy to its end."""
        return self._run("-c", "from ops.cli import main; main()", *arguments, environment=environment, stdin=stdin)

    def _run(
        self, *command: str, environment: Mapping[str, str], stdin: int | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.path,
            env={**os.environ, **environment},
            text=True,
            stdin=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set environment variables and have the settings read again."""

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        reset_settings()

    return set_variables


@pytest.fixture
def url(database: str, use: Callable[..., None]) -> str:
    """Point DATABASE_URL at a fresh, empty database."""
    use(DATABASE_URL=database, APP_ENV="test")
    return database


@pytest.fixture
def any_url(any_database: str, use: Callable[..., None]) -> str:
    """Point DATABASE_URL at a fresh, empty database of each major version in turn."""
    use(DATABASE_URL=any_database, APP_ENV="test")
    return any_database


@pytest.fixture(scope="session")
def production_template(postgres: Postgres) -> str:
    """Return the name of a database that was deployed to production, to make others from."""
    name = "in_production"
    postgres.create_database(name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable, value in {"DATABASE_URL": postgres.url(name), **PRODUCTION}.items():
            monkeypatch.setenv(variable, value)
        reset_settings()
        runner.deploy(report=lambda _: None)
    reset_settings()
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Give an empty folder for migration files."""
    return Folder(tmp_path / "versions")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Give a copy of the project, in a path with a space and a percent sign."""
    path = tmp_path / "a copy 100% ok"
    path.mkdir()
    return Project(path)


@pytest.fixture
def said() -> list[str]:
    """Collect what a run reports: pass `report=said.append`."""
    return []

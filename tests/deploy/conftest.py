"""What was built for real, once for all tests that look into it or run it.

Tests of builds carry the mark `deploy`: `make test-deploy` runs them, `make test` does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.deploy import tools, vercel_build, vercel_instance
from tests.deploy.vercel_build import Build
from tests.deploy.vercel_instance import Instance
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of

# A word that no file of the project may carry into the bundle: the secret of a developer's .env.
SECRET = "secret-of-this-machine"
PASSWORD = "Correct-Horse-9-Battery"  # of the first admin user

# An endpoint as a user would add it: it takes a connection, and answers when the test lets it.
HOLD = '''"""Wait for an advisory lock."""

from shared import db
from shared.web import Endpoint, lambda_handler

endpoint = Endpoint("/api/hold")


@endpoint.get
def hold() -> dict[str, bool]:
    db.execute("SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)")
    return {"held": True}


handler = lambda_handler(endpoint)
'''

RunBuild = Callable[..., Build]
RunInstance = Callable[..., AbstractContextManager[Instance]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one build in one process: `make test-deploy` runs two."""
    for item in items:
        if item.get_closest_marker("deploy"):
            of_vercel = item.path.name.startswith("test_vercel")
            group = "vercel" if of_vercel else "aws" if item.path.parent.name == "aws" else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))


@contextmanager
def or_skip() -> Iterator[None]:
    """Skip the test where this machine lacks a tool; in CI, where CI=true, fail."""
    try:
        yield
    except tools.Missing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def vercel_build_of(tmp_path_factory: pytest.TempPathFactory) -> RunBuild:
    """Give the function that builds a fresh copy: `vercel_build_of(change, **variables)`.

    `change` may edit the copy before it is built. It is cluttered as a developer's folder is.
    """

    def run(change: Callable[[Path], None] = lambda _: None, **variables: str) -> Build:
        with or_skip():
            project = vercel_build.copy_project(tools.ROOT, tmp_path_factory.mktemp("vercel") / "project")
            clutter(project)
            change(project)
            return vercel_build.build(project, {"ADMIN_INITIAL_PASSWORD": PASSWORD, **variables})

    return run


def clutter(project: Path) -> None:
    """Put into a project what lies about on a developer's machine and must not be deployed."""
    for name in (
        *(".env", ".env.local", ".env.production", ".data/postgres/base", ".venv/lib/module.py", ".github/x.yml"),
        *("build/lib/copy.py", "x.egg-info/PKG-INFO", "backup.dump", "secrets.json", "notes.py", "shared.py.orig"),
        *("public_html/index.html", "node_modules/x/index.js", "functions/__pycache__/health.cpython-311.pyc"),
    ):
        file = project / name
        assert file.resolve().is_relative_to(project.resolve()), f"{name} would be written into the checkout itself"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"SECRET='{SECRET}'\n", "utf-8")


@pytest.fixture(scope="session")
def vercel_database(postgres: Postgres) -> Iterator[str]:
    """Return the URL of the database that the build's hook migrated, once `vercel_built` was asked for."""
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def deployed_database(postgres: Postgres, vercel_built: Build, vercel_database: str) -> Iterator[str]:
    """Return the URL of a fresh copy of the database that the build's hook has migrated."""
    with postgres.database(template=name_of(vercel_database)) as name:
        yield postgres.url(name)


@pytest.fixture(scope="session")
def vercel_built(vercel_build_of: RunBuild, vercel_database: str) -> Build:
    """Return the build of this project for production."""
    built = vercel_build_of(VERCEL_ENV="production", DATABASE_URL=vercel_database)
    assert built.code == 0, built.log
    return built


@pytest.fixture(scope="session")
def vercel_folder(vercel_built: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the function lies as an instance finds it, with the endpoint /api/hold added."""
    if sys.platform != "linux":
        pytest.skip("The function is built for Linux, and runs there only.")
    folder = tmp_path_factory.mktemp("vercel") / "function"
    vercel_built.function.copy_to(folder)
    (folder / "functions" / "hold.py").write_text(HOLD, "utf-8")
    return folder


@pytest.fixture(scope="session")
def vercel_instance_of(vercel_built: Build, vercel_folder: Path) -> RunInstance:
    """Give the function that starts an instance: `with vercel_instance_of(DATABASE_URL=url) as instance`."""

    def run(**variables: str) -> AbstractContextManager[Instance]:
        environment = vercel_built.function.config["environment"]
        return vercel_instance.running(vercel_folder, vercel_built.python, environment, variables)

    return run

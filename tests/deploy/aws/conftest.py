"""The zip for Lambda, made once for all tests that look into it, run it or deploy it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.aws import bundle, instance
from tests.deploy.aws.bundle import Bundle
from tests.deploy.aws.instance import Instance
from tests.deploy.conftest import clutter, or_skip
from tests.servers.postgres import Postgres

ENDPOINTS = Path(__file__).parent / "endpoints"

Start = Callable[..., Instance]


@pytest.fixture(scope="session")
def aws_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return what osls packaged of this checkout."""
    with or_skip():
        return bundle.package(tmp_path_factory.mktemp("aws"), clutter)


@pytest.fixture(scope="session")
def task_root(aws_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the zip lies as an instance finds it, with the tests' endpoints in `extra`."""
    folder = aws_bundle.unpack(tmp_path_factory.mktemp("task"))
    shutil.copytree(ENDPOINTS, folder / "extra", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="session")
def lambda_database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """Return the URL of a migrated database for tests that leave it as it was."""
    with postgres.database(template=migrated_template) as name:
        yield postgres.url(name)


@pytest.fixture
def start(aws_bundle: Bundle, task_root: Path, tmp_path: Path) -> Iterator[Start]:
    """Start an instance: start("functions/health.handler", DATABASE_URL=url). It ends with the test."""
    with ExitStack() as stack:

        def start(handler: str, **variables: str) -> Instance:
            with or_skip():
                return stack.enter_context(
                    instance.running(aws_bundle, task_root, handler, variables, tmp_path / "log")
                )

        yield start

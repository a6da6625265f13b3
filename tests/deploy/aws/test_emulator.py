"""The zip under AWS's own emulator of a function's life: ends that the Runtime API cannot show, and `migrate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from shared.db.schema_head import REVISION
from tests.deploy.aws import emulator
from tests.deploy.aws.bundle import PASSWORD, Bundle
from tests.deploy.aws.emulator import Emulator
from tests.deploy.conftest import or_skip
from tests.shared.web.lambda_events import event

pytestmark = pytest.mark.deploy

Emulate = Callable[..., Emulator]


@pytest.fixture
def emulate(aws_bundle: Bundle, task_root: Path, tmp_path: Path) -> Iterator[Emulate]:
    """Run a handler in the emulator: emulate("functions/health.handler", DATABASE_URL=url)."""
    with ExitStack() as stack:

        def emulate(handler: str, *, timeout: int = 28, **variables: str) -> Emulator:
            with or_skip():
                return stack.enter_context(
                    emulator.running(aws_bundle, task_root, handler, variables, tmp_path / "rie", timeout=timeout)
                )

        yield emulate


def test_requests_are_answered(emulate: Emulate, lambda_database: str) -> None:
    function = emulate("functions/health.handler", DATABASE_URL=lambda_database)

    answers = [function.invoke(event(path="/api/health")) for _ in range(3)]

    assert [(answer["statusCode"], json.loads(answer["body"])["status"]) for answer in answers] == [(200, "ok")] * 3
    assert function.invoke({"source": "aws.events"}) == {"ignored": True}


def test_after_a_timeout_the_next_request_finds_a_new_process(emulate: Emulate, lambda_database: str) -> None:
    function = emulate("extra/slow.handler", timeout=2, DATABASE_URL=lambda_database)

    assert function.invoke(event(path="/api/slow/query"))["statusCode"] == 504, "our own end comes first"
    assert "timed out" in str(function.invoke(event(path="/api/slow/code")))
    assert function.invoke(event(path="/api/slow/nothing"))["statusCode"] == 200


def test_an_import_error_is_in_the_answer_and_the_log(emulate: Emulate) -> None:
    function = emulate("extra/broken.handler")

    assert function.invoke(event())["errorType"] == "Runtime.ImportModuleError"
    assert "No module named 'a_package_that_nobody_requires'" in function.log


def test_migrate_migrates_when_it_is_told_to(emulate: Emulate, database: str) -> None:
    function = emulate(
        "migrations/aws_handler.handler",
        DATABASE_URL=database,
        DATABASE_DISABLE_SSL="true",
        ADMIN_INITIAL_PASSWORD=PASSWORD,
    )

    refused = function.invoke({})
    assert (refused["ok"], refused["exit_code"]) == (False, 2)
    assert revision(database) is None, "a click on Test in the console must not migrate"

    done = function.invoke({"command": "deploy"})
    assert done["ok"] is True, done
    assert f"The database is at {REVISION}" in done["lines"]
    assert revision(database) == REVISION
    assert function.invoke({"command": "deploy"}) == {"ok": True, "lines": ["Nothing to migrate"]}
    assert PASSWORD not in function.log


def test_migrate_says_what_failed(emulate: Emulate, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE plans (mine int)")
    function = emulate(
        "migrations/aws_handler.handler",
        DATABASE_URL=database,
        DATABASE_DISABLE_SSL="true",
        ADMIN_INITIAL_PASSWORD=PASSWORD,
    )

    answer = function.invoke({"command": "deploy"})

    assert answer["ok"] is False
    assert "plans" in answer["error"]
    assert answer["exit_code"] != 0


def revision(database: str) -> object:
    with psycopg.connect(database) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            return None
    return row and row[0]

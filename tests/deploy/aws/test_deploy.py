"""Deploys from first to last, by osls on an AWS of this machine, with a real database and the real `migrate`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg
import pytest

from ops.aws_package import Package
from shared.db.schema_head import REVISION
from shared.web.application import endpoints_in
from tests.deploy import tools
from tests.deploy.aws import bundle, cloud, emulator
from tests.deploy.aws.bundle import DATABASE_URL, PASSWORD, Bundle
from tests.deploy.aws.cloud import Cloud
from tests.deploy.aws.test_emulator import revision
from tests.deploy.conftest import or_skip

pytestmark = pytest.mark.deploy

ALL = {endpoint.module.rpartition(".")[2] for endpoint in endpoints_in(tools.ROOT / "functions", "functions")}
ALL |= {"migrate"}

Deploy = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Run the AWS of all these tests."""
    with or_skip(), cloud.running(tmp_path_factory.mktemp("moto") / "log") as running:
        yield running


@pytest.fixture
def aws(account: Cloud) -> Iterator[Cloud]:
    """Return an empty account."""
    yield account
    account.reset()


@pytest.fixture(scope="session")
def project(aws_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project to deploy from, whose hooks find this checkout's .venv and AWS's library."""
    with or_skip():
        project = bundle.project(tmp_path_factory.mktemp("aws") / "project")
    for name in (".venv", ".data"):
        (project / name).symlink_to(tools.ROOT / name)
    return project


@pytest.fixture
def osls(aws: Cloud, aws_bundle: Bundle, project: Path, database: str, tmp_path: Path) -> Deploy:
    """Run osls on the account: osls("deploy", via="lambda"). The package is ready, and names this test's database."""
    package = tmp_path / "package"
    shutil.copytree(aws_bundle.folder, package)
    for file in package.glob("*.json"):
        file.write_text(file.read_text("utf-8").replace(json.dumps(DATABASE_URL), json.dumps(database)), "utf-8")
    state = package / "serverless-state.json"
    packaged = state.read_text("utf-8")

    def run(command: str, *, via: str = "here") -> CompletedProcess[str]:
        options = []
        if command == "deploy":
            options = ["--package", str(package)]
            state.write_text(packaged.replace("migrate --via here", f"migrate --via {via}"), "utf-8")
        with or_skip():
            return bundle.osls(
                project,
                *command.split(),
                *options,
                "--param",
                f"migrateVia={via}",
                variables={
                    **aws.environment,
                    "DATABASE_URL": database,
                    "DATABASE_DISABLE_SSL": "true",
                    "APP_ENV": "production",
                    "ADMIN_INITIAL_PASSWORD": PASSWORD,
                },
            )

    return run


@pytest.fixture
def migrate(aws: Cloud, aws_bundle: Bundle, task_root: Path, database: str, tmp_path: Path) -> Iterator[list[set[str]]]:
    """Let the account run the packaged `migrate`; return the functions that were there at each call."""
    seen: list[set[str]] = []
    with ExitStack() as stack:
        function = stack.enter_context(
            emulator.running(
                aws_bundle,
                task_root,
                Package.read(aws_bundle.folder).function("migrate")["Handler"],
                {"DATABASE_URL": database, "DATABASE_DISABLE_SSL": "true", "ADMIN_INITIAL_PASSWORD": PASSWORD},
                tmp_path / "rie",
            )
        )

        def call(event: Any) -> Any:
            seen.append(aws.functions())
            return function.invoke(event)

        aws.migrate = call
        yield seen


def break_migrations(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE plans (mine int)")


def test_a_deploy_migrates_first_and_again_with_nothing_to_do(aws: Cloud, osls: Deploy, database: str) -> None:
    first = osls("deploy")

    assert first.returncode == 0, first.stdout
    assert f"The database is at {REVISION}" in first.stdout
    assert revision(database) == REVISION
    assert aws.functions() == ALL
    assert PASSWORD not in first.stdout

    second = osls("deploy")

    assert second.returncode == 0, second.stdout
    assert "Nothing to migrate" in second.stdout

    before = aws.state()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '20200101000000'")
    failed = osls("deploy")

    assert failed.returncode != 0
    assert aws.state() == before

    removed = osls("remove")

    assert removed.returncode == 0, removed.stdout
    assert aws.functions() == set()
    assert revision(database) is not None, "the database is left alone"


def test_where_migrating_fails_nothing_is_changed(aws: Cloud, osls: Deploy, database: str) -> None:
    break_migrations(database)

    failed = osls("deploy")

    assert failed.returncode != 0
    assert "20261121120200_create_plans.sql failed" in failed.stdout
    assert aws.calls == []
    assert aws.functions() == set()


def test_a_database_in_the_vpc_is_migrated_by_the_function(
    aws: Cloud, osls: Deploy, migrate: list[set[str]], database: str
) -> None:
    first = osls("deploy", via="lambda")

    assert first.returncode == 0, first.stdout
    assert f"The database is at {REVISION}" in first.stdout
    assert migrate == [{"migrate"}], "at the first deploy it was alone"
    assert aws.calls[:3] == ["CreateStack", "UpdateStack", "Invoke migrate"]
    assert aws.calls.count("Invoke migrate") == 1
    assert aws.functions() == ALL

    second = osls("deploy", via="lambda")

    assert second.returncode == 0, second.stdout
    assert "Nothing to migrate" in second.stdout
    assert migrate[1] == ALL, "the others stay while it is brought up to date"


def test_where_the_function_fails_to_migrate_the_rest_waits(
    aws: Cloud, osls: Deploy, migrate: list[set[str]], database: str
) -> None:
    break_migrations(database)

    failed = osls("deploy", via="lambda")

    assert failed.returncode != 0
    assert "did not migrate" in failed.stdout
    assert "plans" in failed.stdout
    assert aws.calls == ["CreateStack", "UpdateStack", "Invoke migrate"], "it is not called again"
    assert aws.functions() == {"migrate"}


def test_one_function_is_not_deployed_over_an_older_schema(aws: Cloud, osls: Deploy) -> None:
    refused = osls("deploy function -f health")

    assert refused.returncode != 0
    assert f"The database is at no revision, and this code was written for {REVISION}." in refused.stdout
    assert "make deploy-aws" in refused.stdout

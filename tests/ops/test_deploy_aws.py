"""What stands between a deploy to AWS and a mistake; tests/deploy/aws deploys for real."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ops import aws_migrate, deploy_aws, lambda_bytecode
from ops.aws_package import Package
from shared.db.schema_head import REVISION
from shared.errors import ConfigurationError, LocalEnvironmentError, MigrationError, Refused


def template(variables: dict[str, Any]) -> dict[str, Any]:
    """Return a template as osls writes it, as far as it is read."""
    code = {"S3Bucket": {"Ref": "Bucket"}, "S3Key": "serverless/x/production/1-2025/x.zip"}
    function = {
        "Code": code,
        "FunctionName": "x-production-migrate",
        "Timeout": 900,
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Environment": {"Variables": variables},
    }
    other = {**function, "FunctionName": "x-production-health", "Role": {"Fn::GetAtt": ["OtherRole", "Arn"]}}
    return {
        "Resources": {
            "Bucket": {"Type": "AWS::S3::Bucket"},
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"Arn": {"Fn::Sub": "arn:${AWS::Partition}:${Key}"}}},
            "Key": {"Type": "AWS::KMS::Key", "DependsOn": ["Log"]},
            "Log": {"Type": "AWS::Logs::LogGroup"},
            "OtherRole": {"Type": "AWS::IAM::Role"},
            "Migrate": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Health": {"Type": "AWS::Lambda::Function", "Properties": other},
            "Route": {"Type": "AWS::ApiGatewayV2::Route", "Properties": {"Target": {"Ref": "Health"}}},
        }
    }


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the code under test find its package in an empty folder."""
    monkeypatch.setattr(deploy_aws, "ROOT", tmp_path)
    return tmp_path


def packaged(root: Path, **variables: Any) -> Package:
    folder = root / ".serverless"
    folder.mkdir()
    state = {
        "service": {"service": "x", "provider": {"stage": "production", "region": "us-east-1"}},
        "package": {"artifact": "x.zip"},
    }
    (folder / "serverless-state.json").write_text(json.dumps(state))
    (folder / "cloudformation-template-create-stack.json").write_text("{}")
    (folder / "cloudformation-template-update-stack.json").write_text(json.dumps(template(variables)))
    return Package.read(folder)


def test_without_a_package_it_says_how_to_make_one(root: Path) -> None:
    with pytest.raises(LocalEnvironmentError) as caught:
        deploy_aws.migrate("here")
    assert caught.value.solutions == ("Make one: make build-aws",)


def test_a_function_and_all_that_it_needs(root: Path) -> None:
    package = packaged(root)

    assert package.stack == "x-production"
    assert set(package.with_needs(package.logical_id("migrate"))) == {"Migrate", "Bucket", "Role", "Key", "Log"}
    with pytest.raises(LocalEnvironmentError, match="no function nightly"):
        package.logical_id("nightly")


@pytest.mark.parametrize("via", ["here", "lambda"])
def test_functions_without_a_database_do_not_go_up(root: Path, via: str) -> None:
    packaged(root, DATABASE_URL="")

    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        deploy_aws.migrate(via)


def test_a_database_on_this_machine_is_not_for_aws(root: Path, database: str) -> None:
    packaged(root, DATABASE_URL=database)

    with pytest.raises(Refused, match="leads to this machine"):
        deploy_aws.migrate("here")


def test_a_dry_run_does_not_let_the_functions_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(root, DATABASE_URL="postgresql://u:p@db.example.com/x")
    monkeypatch.setenv("MIGRATION_DRYRUN", "true")

    with pytest.raises(Refused, match="MIGRATION_DRYRUN"):
        deploy_aws.migrate("here")


def test_a_value_that_only_cloudformation_knows_needs_the_function(root: Path) -> None:
    packaged(root, DATABASE_URL={"Fn::Sub": "postgresql://${Proxy}/x"})

    with pytest.raises(ConfigurationError) as caught:
        deploy_aws.migrate("here")
    assert "migrateVia" in caught.value.solutions[0]


# -- one function alone -----------------------------------------------------------------------------


def test_one_function_may_go_up_where_its_schema_is_there(
    migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_database)

    deploy_aws.check("here")


def test_one_function_may_not_go_up_over_an_older_schema(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)

    with pytest.raises(Refused) as caught:
        deploy_aws.check("here")
    assert caught.value.message == f"The database is at no revision, and this code was written for {REVISION}."
    with pytest.raises(Refused, match="cannot be seen from here"):
        deploy_aws.check("lambda")


# -- what the function `migrate` says ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "function_error"),
    [
        ("null", None),
        ("{}", None),
        ("[]", None),
        ("not JSON", None),
        ('{"ok": "true"}', None),
        ('{"ok": false, "error": "boom"}', None),
        ('{"ok": true}', "Unhandled"),
        ('{"errorMessage": "Task timed out after 900.00 seconds"}', "Unhandled"),
    ],
)
def test_anything_but_an_explicit_ok_is_a_failure(payload: str, function_error: str | None) -> None:
    with pytest.raises(MigrationError, match="did not migrate"):
        aws_migrate.read(payload, function_error, report=lambda _: None)


def test_what_it_did_is_told() -> None:
    told: list[str] = []

    aws_migrate.read('{"ok": true, "lines": ["Applied a.sql", "Nothing else"]}', None, report=told.append)

    assert told == ["Applied a.sql", "Nothing else"]


# -- bytecode ---------------------------------------------------------------------------------------


def test_bytecode_is_made_for_the_zip_and_not_in_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"packages/lib/a.py": "A = 1", "packages/single.py": "S = 2", "functions/health.py": "H = 3"}
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)

    assert lambda_bytecode.main(Path("packages"), [Path("functions")]) == 0

    tag = sys.implementation.cache_tag
    made = {str(path) for path in Path().rglob("*.pyc")}
    assert made == {
        f"packages/lib/__pycache__/a.{tag}.pyc",
        "packages/single.pyc",
        f"packages/functions/__pycache__/health.{tag}.pyc",
    }
    assert not Path("packages/single.py").exists(), "it would be read instead"
    spec = importlib.util.spec_from_file_location("single", "packages/single.pyc")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.S == 2


def test_a_file_that_is_no_python_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("packages").mkdir()
    Path("functions").mkdir()
    Path("functions/broken.py").write_text("def")

    assert lambda_bytecode.main(Path("packages"), [Path("functions")]) == 1

"""What is in the zip for Lambda, and in the template beside it."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ops.aws_package import Package
from shared.web.application import endpoints_in
from tests.deploy import tools
from tests.deploy.aws.bundle import DATABASE_URL, LIMIT, PASSWORD, Bundle, python_packages, runtime_version
from tests.deploy.conftest import SECRET, or_skip

pytestmark = pytest.mark.deploy

UNCHECKED_HASH = 0b01  # PEP 552


@pytest.fixture(scope="session")
def resources(aws_bundle: Bundle) -> dict[str, Any]:
    """Return the resources of the template."""
    found: dict[str, Any] = Package.read(aws_bundle.folder).template["Resources"]
    return found


def test_it_is_small(aws_bundle: Bundle) -> None:
    assert aws_bundle.zip.stat().st_size < LIMIT


def test_it_holds_our_code_and_nothing_of_the_developers(aws_bundle: Bundle) -> None:
    ours = {name.partition("/")[0] for name in aws_bundle.names()} & {path.name for path in tools.ROOT.iterdir()}
    # The list of packages comes along with them.
    assert ours == {"app.py", "functions", "migrations", "requirements.txt", "shared"}
    expected = {
        str(file.relative_to(tools.ROOT))
        for room in ("functions", "migrations", "shared")
        for file in (tools.ROOT / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    found = {
        name
        for name in aws_bundle.names()
        if name.startswith(("functions/", "migrations/", "shared/")) and "__pycache__" not in name
    }
    assert found == expected
    with zipfile.ZipFile(aws_bundle.zip) as archive:
        assert not [name for name in archive.namelist() if SECRET.encode() in archive.read(name)]


def test_the_packages_are_those_that_are_required(aws_bundle: Bundle) -> None:
    required = {
        line.partition("==")[0].partition("[")[0].replace("-", "_").lower()
        for line in (tools.ROOT / "requirements.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    found = {
        name.partition(".dist-info")[0].rpartition("-")[0].lower()
        for name in aws_bundle.names()
        if ".dist-info/" in name
    }
    assert found == required


def test_all_of_it_is_compiled_and_not_checked_again(aws_bundle: Bundle) -> None:
    tag = f"cpython-{runtime_version().replace('.', '')}"
    names = set(aws_bundle.names())
    sources = {name for name in names if name.endswith(".py")}
    compiled = {name for name in names if name.endswith(".pyc")}
    assert {name for name in sources if "/" not in name} == {"app.py"}, "others at the top would be compiled each time"
    wanted = set()
    for source in sources - {"app.py"}:
        folder, _, file = source.rpartition("/")
        wanted.add(f"{folder}/__pycache__/{file.removesuffix('.py')}.{tag}.pyc")
    assert compiled - {name for name in compiled if "/" not in name} == wanted
    with zipfile.ZipFile(aws_bundle.zip) as archive:
        flags = {int.from_bytes(archive.read(name)[4:8], "little") for name in compiled}
    assert flags == {UNCHECKED_HASH}


def test_both_drivers_and_what_migrates_import_out_of_it(aws_bundle: Bundle, task_root: Path) -> None:
    program = """
import psycopg, pg8000, scramp, sqlalchemy, alembic, json
assert psycopg.pq.__impl__ == "binary"
print(json.dumps([psycopg.__version__, pg8000.__version__, sqlalchemy.__version__, psycopg.__file__]))
"""
    done = subprocess.run(
        [str(aws_bundle.python), "-S", "-c", program], cwd=task_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *versions, file = json.loads(done.stdout)
    requirements = (tools.ROOT / "requirements.txt").read_text("utf-8")
    for package, version in zip(("psycopg[binary]", "pg8000", "sqlalchemy"), versions, strict=True):
        assert f"{package}=={version}\n" in requirements
    assert file.startswith(str(task_root))


def test_every_wheel_is_there_for_the_other_processor(tmp_path: Path) -> None:
    with or_skip():
        python = tools.python(runtime_version())
    pip = [str(python), "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check", "--no-deps"]
    platforms = ["--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64", "--implementation=cp"]
    options = ["--only-binary=:all:", f"--python-version={runtime_version()}", f"--target={tmp_path}"]
    done = subprocess.run(
        [*pip, *platforms, *options, "--requirement", str(tools.ROOT / "requirements.txt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- the template -----------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing(aws_bundle: Bundle) -> None:
    with or_skip():
        packages = python_packages("aws-tools", "requirements-tools.txt")
    template = aws_bundle.folder / "cloudformation-template-update-stack.json"
    program = "import sys; from cfnlint.runner import main; sys.exit(main())"
    # W3005: osls writes a DependsOn that a reference implies already.
    done = subprocess.run(
        [str(aws_bundle.python), "-S", "-c", program, "--ignore-checks", "W3005", "--template", str(template)],
        env={"PYTHONPATH": str(packages), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_endpoint_has_a_route_and_migrate_has_none(resources: dict[str, Any]) -> None:
    routes = {
        resource["Properties"]["RouteKey"]
        for resource in resources.values()
        if resource["Type"] == "AWS::ApiGatewayV2::Route"
    }
    assert routes == {f"ANY {endpoint.path}" for endpoint in endpoints_in(tools.ROOT / "functions", "functions")}
    allowed = {
        resource["Properties"]["FunctionName"]["Fn::GetAtt"][0]
        for resource in resources.values()
        if resource["Type"] == "AWS::Lambda::Permission"
    }
    assert "MigrateLambdaFunction" in resources
    assert "MigrateLambdaFunction" not in allowed


def test_functions_may_write_their_log_and_nothing_else(resources: dict[str, Any]) -> None:
    roles = [resource for resource in resources.values() if resource["Type"] == "AWS::IAM::Role"]
    assert len(roles) == 1
    properties = roles[0]["Properties"]
    assert "ManagedPolicyArns" not in properties
    for policy in properties["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert all(action.startswith("logs:") for action in statement["Action"])
            assert all(
                ":log-group:/aws/lambda/serverless-postgres-production" in resource["Fn::Sub"]
                for resource in statement["Resource"]
            )


def test_logs_do_not_stay_for_ever(resources: dict[str, Any]) -> None:
    groups = [resource["Properties"] for resource in resources.values() if resource["Type"] == "AWS::Logs::LogGroup"]
    functions = [resource for resource in resources.values() if resource["Type"] == "AWS::Lambda::Function"]
    assert len(groups) == len(functions)
    assert {group["RetentionInDays"] for group in groups} == {30}


def test_the_alarm_watches_the_api(resources: dict[str, Any]) -> None:
    alarm = resources["ServerErrorsAlarm"]["Properties"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/ApiGateway", "5xx")
    assert alarm["Dimensions"] == [{"Name": "ApiId", "Value": {"Ref": "HttpApi"}}]
    assert resources["HttpApi"]["Type"] == "AWS::ApiGatewayV2::Api"


def test_the_admins_password_is_no_functions_variable(aws_bundle: Bundle) -> None:
    text = (aws_bundle.folder / "cloudformation-template-update-stack.json").read_text("utf-8")
    assert DATABASE_URL in text
    assert PASSWORD not in text

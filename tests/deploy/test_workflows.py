"""The GitHub workflows and .ci/run do what the docs say, with no more rights than they need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import VARIABLES
from shared.web.application import endpoints_in
from tests.deploy import image

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> dict[Any, Any]:
    config: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
    return config


def triggers(workflow: dict[Any, Any]) -> dict[str, Any]:
    """Give what starts a workflow: YAML 1.1 reads the key `on` as true."""
    started_by: dict[str, Any] = workflow[True]
    return started_by


def commands(workflow: dict[Any, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("name", [path.name for path in WORKFLOWS])
def test_workflows_may_only_read(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in triggers(workflow), "it would run strangers' code with our secrets"
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 30
        for step in job["steps"]:
            action = step.get("uses")
            assert action is None or re.fullmatch(r"actions/[\w-]+@v\d+", action)
            if action and action.startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_they_are_what_github_takes() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [str(checker), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_ci_runs_what_the_script_of_ci_runs() -> None:
    workflow = read("ci.yml")
    assert {"push", "pull_request"} <= set(triggers(workflow))
    script = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    made = [command for command in commands(workflow) if command.startswith("make ")]
    assert made == [line for line in script if line.startswith("make ")]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {command.removeprefix("make ") for command in made} <= set(targets)


def test_ci_tests_every_python_from_the_oldest_that_is_supported() -> None:
    versions = read("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    minors = [int(version.removeprefix("3.")) for version in versions]
    assert minors == list(range(minors[0], minors[-1] + 1))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={versions[0]}"
    # Those that the deployments run are among them.
    base = re.match(r"python:(3\.\d+)\.", image.read()[-1].base)
    assert base is not None
    assert base[1] in versions


def test_builds_run_on_the_python_of_the_functions() -> None:
    steps = read("ci.yml")["jobs"]["deploy"]["steps"]
    (version,) = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    serverless = yaml.safe_load((ROOT / "serverless.yml").read_text("utf-8"))
    assert version in str(serverless["custom"]["python"])


def test_the_whole_deployment_of_one_machine_comes_up_where_there_is_an_engine() -> None:
    job = read("ci.yml")["jobs"]["compose"]
    assert (ROOT / job["env"]["COMPOSE_FILE"]).is_file()
    script = "\n".join(step["run"] for step in job["steps"] if "run" in step)
    needed = re.findall(r"\$\{(\w+):\?", (ROOT / job["env"]["COMPOSE_FILE"]).read_text("utf-8"))
    for name in {*needed, "ADMIN_INITIAL_PASSWORD"}:
        assert f"{name}=" in script
    paths = re.findall(r"http://127\.0\.0\.1:3000(\S+)", script)
    assert set(paths) <= {endpoint.path for endpoint in endpoints_in(ROOT / "functions", "functions")}
    assert paths


def test_ci_needs_no_secret() -> None:
    assert "secrets." not in (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")


def test_production_is_migrated_on_main_only_one_run_at_a_time() -> None:
    workflow = read("migrate.yml")
    assert triggers(workflow) == {"push": {"branches": ["main"]}}
    assert workflow["concurrency"] == {"group": "migrate-production", "cancel-in-progress": False}
    (job,) = workflow["jobs"].values()
    assert job["environment"] == "production"
    assert job["if"] == "vars.MIGRATION_WORKFLOW == 'true'", "a clone without the secrets must not fail at every push"


def test_the_migration_step_gets_the_secrets_and_nothing_else_does() -> None:
    (job,) = read("migrate.yml")["jobs"].values()
    *others, step = job["steps"]
    assert step["name"] == "Run database migrations"
    assert step["run"] == "python -m migrations deploy"
    assert step["env"]["DATABASE_URL"] == "${{ secrets.DATABASE_URL }}"
    # Without it an empty DATABASE_URL would mean the local database of a developer.
    assert step["env"]["APP_ENV"] == "production"
    assert set(step["env"]) <= {variable.name for variable in VARIABLES}
    assert "env" not in job
    assert not [other for other in others if "env" in other]


def test_the_migration_step_does_what_it_says(database: str, tmp_path: Path) -> None:
    """It has what the step before installs, and the secrets; the database is empty."""
    (job,) = read("migrate.yml")["jobs"].values()
    *_, install, step = job["steps"]
    assert install["run"] == "python -m pip install --requirement requirements.txt"
    image.make_venv(tmp_path / "venv")
    secrets = {"DATABASE_URL": database, "ADMIN_INITIAL_PASSWORD": "Correct-Horse-9-Battery"}
    environ = {name: secrets.get(name, value) for name, value in step["env"].items()}
    command = [str(tmp_path / "venv" / "bin" / "python"), *step["run"].split()[1:]]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "The database is at" in done.stdout


def test_the_script_of_ci_checks_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").splitlines() == [
        "#!/usr/bin/env bash",
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make check",
        "make test",
        "make test-deploy",
        "make test-browser",
    ]

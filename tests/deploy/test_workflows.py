"""The GitHub workflows and .ci/run do what the docs say, with no more rights than they need."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import VARIABLES

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


def test_ci_checks_and_tests_every_python_that_is_supported() -> None:
    workflow = read("ci.yml")
    assert {"push", "pull_request"} <= set(triggers(workflow))
    assert commands(workflow) == ["make check", "make test"]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


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


def test_the_script_of_ci_checks_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").splitlines() == [
        "#!/usr/bin/env bash",
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make check",
        "make test",
    ]

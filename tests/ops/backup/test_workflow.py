"""The workflow that backs up every night: switched off in a clone, and its commands are real."""

from __future__ import annotations

from typing import Any

import typer.main
import yaml

from ops.backup import retention
from ops.cli import cli
from ops.embedded import ROOT


def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "backup.yml").read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["if"] == "vars.BACKUP_WORKFLOW == 'true'", "a clone without the secrets must not fail every night"
    assert job["environment"] == "production"
    assert workflow["concurrency"]["cancel-in-progress"] is False
    found: list[dict[str, Any]] = job["steps"]
    return found


def test_its_commands_exist_and_their_rule_is_one() -> None:
    backup, verify = [step["run"].split() for step in steps() if step.get("run", "").startswith(".venv/bin/db ")]
    group: Any = typer.main.get_command(cli)
    command = group.commands["backup"]
    assert backup[1:3] == ["backup", "--to"]
    assert {"--to", "--keep"} <= {option for parameter in command.params for option in parameter.opts}
    assert retention.parse(backup[backup.index("--keep") + 1])
    assert verify[1:3] == ["backup", "verify"]
    assert "verify" in command.commands


def test_only_the_last_two_steps_get_secrets() -> None:
    *others, backup, verify = steps()
    assert not [step for step in others if "env" in step]
    assert backup["env"]["DATABASE_URL"] == "${{ secrets.DATABASE_URL }}"
    assert "DATABASE_URL" not in verify["env"]

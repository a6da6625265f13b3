"""vercel.json and pyproject.toml say what Vercel's builder needs, and let nothing ship that should not."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared.settings import Settings
from shared.web.application import endpoints_in

ROOT = Path(__file__).resolve().parents[2]
NEVER_SHIPPED = {"bench", "docs", "migrations", "ops", "tests"}


@pytest.fixture
def vercel() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((ROOT / "vercel.json").read_text("utf-8"))
    return config


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_there_is_one_python_function(vercel: dict[str, Any]) -> None:
    # Without the framework Vercel would publish the whole source as static files.
    assert vercel["framework"] == "python"
    assert list(vercel["functions"]) == ["app.py"]
    assert "builds" not in vercel, "it would build without the migration hook"
    assert "public" not in {path.name for path in ROOT.iterdir()}, "Vercel publishes such a folder"


def test_no_command_takes_the_place_of_the_hook(vercel: dict[str, Any], project: dict[str, Any]) -> None:
    assert "buildCommand" not in vercel
    assert "installCommand" not in vercel
    assert project["tool"]["vercel"]["scripts"] == {"vercel-build": "python -m migrations deploy"}


def test_only_what_the_app_needs_ships(vercel: dict[str, Any]) -> None:
    pattern = vercel["functions"]["app.py"]["excludeFiles"]
    assert len(pattern) <= 256, "Vercel's limit"
    # Everything at the top but these names. A pattern that began with `!` would mean the opposite of all of it.
    names = re.fullmatch(r"\{!\(([^()]+)\),\*\*/__pycache__\}/\*\*", pattern)
    assert names is not None, "a form whose effect was seen in a real build"
    shipped = set(names[1].split("|"))
    assert shipped >= {"app.py", "functions", "shared"}
    assert shipped.isdisjoint(NEVER_SHIPPED)
    assert {path.name for path in ROOT.iterdir()} >= shipped, "a name that nothing has"


def test_functions_run_in_one_region(vercel: dict[str, Any]) -> None:
    # Near the database: a second region would be far from it, and have connections of its own.
    assert len(vercel["regions"]) == 1


def test_bytecode_is_compiled_in_the_build(vercel: dict[str, Any]) -> None:
    assert vercel["build"]["env"] == {"VERCEL_PYTHON_COMPILEALL": "1"}


def test_crons_call_endpoints_that_exist(vercel: dict[str, Any]) -> None:
    paths = {endpoint.path for endpoint in endpoints_in(ROOT / "functions", "functions")}
    assert {cron["path"] for cron in vercel.get("crons", [])} <= paths


def test_the_app_gives_up_before_vercel_does(vercel: dict[str, Any]) -> None:
    assert Settings.read({}).request_timeout < vercel["functions"]["app.py"]["maxDuration"]


def test_dependencies_are_those_of_the_one_list(project: dict[str, Any]) -> None:
    # A pyproject.toml that did not name it would make Vercel install nothing, and say so nowhere.
    assert "dependencies" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert project["tool"]["setuptools"]["packages"] == [], "our code would be in the bundle twice"


def test_the_entry_is_found_without_running_the_file(project: dict[str, Any]) -> None:
    assert project["tool"]["vercel"]["entrypoint"] == "app:app"
    names = set()
    for node in ast.parse((ROOT / "app.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AsyncFunctionDef):
            names.add(node.name)
    assert "app" in names

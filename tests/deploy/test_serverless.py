"""serverless.yml has every endpoint, ships what they need, and knows the runtime it builds for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import VARIABLES, Settings
from shared.web.application import EndpointFile, endpoints_in

ROOT = Path(__file__).resolve().parents[2]
HTTP_API_TIMEOUT = 30  # seconds; API Gateway's quotas for HTTP APIs


@pytest.fixture
def serverless() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "serverless.yml").read_text("utf-8"))
    return config


def entry(endpoint: EndpointFile) -> dict[str, Any]:
    """Give what serverless.yml must say of an endpoint."""
    return {
        "handler": f"{endpoint.module.replace('.', '/')}.handler",
        "events": [{"httpApi": {"path": endpoint.path, "method": "*"}}],
    }


def lines(endpoint: EndpointFile) -> str:
    """Write the lines for serverless.yml."""
    wanted = entry(endpoint)
    return (
        f"  {endpoint.module.rpartition('.')[2]}:\n"
        f"    handler: {wanted['handler']}\n"
        f"    events:\n"
        f'      - httpApi: {{ path: "{endpoint.path}", method: "*" }}\n'
    )


def missing_from(config: dict[str, Any], folder: Path) -> str:
    """Write the lines that serverless.yml lacks for the endpoints in a folder."""
    missing = ""
    for endpoint in endpoints_in(folder, "functions"):
        function = config["functions"].get(endpoint.module.rpartition(".")[2], {})
        if any(function.get(key) != value for key, value in entry(endpoint).items()):
            missing += lines(endpoint)
    return missing


def test_every_endpoint_is_a_function(serverless: dict[str, Any]) -> None:
    missing = missing_from(serverless, ROOT / "functions")
    assert not missing, f"add these lines to serverless.yml, under functions:\n{missing}"


def test_the_lines_to_add_are_right(serverless: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "note.py").write_text('endpoint = Endpoint("/api/notes/{id}")\n', "utf-8")
    missing = missing_from(serverless, tmp_path)
    assert yaml.safe_load(missing) == {
        "note": {
            "handler": "functions/note.handler",
            "events": [{"httpApi": {"path": "/api/notes/{id}", "method": "*"}}],
        }
    }
    serverless["functions"].update(yaml.safe_load(missing))
    assert missing_from(serverless, tmp_path) == ""


def test_every_function_has_a_file(serverless: dict[str, Any]) -> None:
    for name, function in serverless["functions"].items():
        module, _, attribute = function["handler"].rpartition(".")
        source = (ROOT / f"{module}.py").read_text("utf-8")
        assert re.search(rf"^{attribute} = ", source, re.MULTILINE), name


def test_the_zip_holds_only_what_endpoints_need(serverless: dict[str, Any]) -> None:
    package = serverless["package"]
    assert package["individually"] is False
    assert package["patterns"][0] == "!**", "first nothing, then what is named"
    shipped = {pattern for pattern in package["patterns"] if not pattern.startswith("!")}
    assert shipped >= {"functions/**", "shared/**"}
    assert {pattern.partition("/")[0] for pattern in shipped}.isdisjoint({"**", "bench", "docs", "ops", "tests"})


def test_requirements_keep_what_the_drivers_look_up(serverless: dict[str, Any]) -> None:
    settings = serverless["custom"]["pythonRequirements"]
    # The plugin's own patterns remove *.dist-info: pg8000 then fails, and psycopg calls itself 0.0.0.0.
    assert settings["slimPatternsAppendDefaults"] is False
    assert not [pattern for pattern in settings["slimPatterns"] if "dist-info" in pattern]
    assert "--only-binary=:all:" in settings["pipCmdExtraArgs"]


def test_one_python_version_builds_and_runs(serverless: dict[str, Any]) -> None:
    version = serverless["provider"]["runtime"].removeprefix("python")
    assert f"--python-version {version}" in serverless["custom"]["pythonRequirements"]["pipCmdExtraArgs"]
    hook = serverless["custom"]["scripts"]["hooks"]["before:package:createDeploymentArtifacts"]
    assert hook.startswith(f"python{version} -m compileall ")
    assert "--invalidation-mode unchecked-hash" in hook, "a zip changes the files' dates"


def test_the_database_is_migrated_before_anything_is_changed(serverless: dict[str, Any]) -> None:
    hooks = serverless["custom"]["scripts"]["hooks"]
    assert hooks["before:deploy:deploy"].endswith("python -m migrations deploy")


def test_bytecode_is_compiled_after_the_packages_are_there(serverless: dict[str, Any]) -> None:
    plugins = serverless["plugins"]
    assert plugins.index("serverless-python-requirements") < plugins.index("serverless-plugin-scripts")


def test_the_functions_get_variables_that_exist(serverless: dict[str, Any]) -> None:
    known = {variable.name for variable in VARIABLES}
    for name, value in serverless["provider"]["environment"].items():
        assert name in known
        optional = f"${{env:{name}, ''}}"
        assert value == (f"${{env:{name}}}" if name == "DATABASE_URL" else optional)


def test_requests_end_before_lambda_and_the_http_api_end_them(serverless: dict[str, Any]) -> None:
    assert Settings.read({}).request_timeout < serverless["provider"]["timeout"] < HTTP_API_TIMEOUT


def test_the_tools_are_pinned(serverless: dict[str, Any]) -> None:
    package = json.loads((ROOT / "package.json").read_text("utf-8"))
    tools = package["devDependencies"]
    assert set(tools) == {"osls", *serverless["plugins"]}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in tools.values())
    assert tools["osls"].startswith(f"{serverless['frameworkVersion']}.")
    assert package["private"] is True

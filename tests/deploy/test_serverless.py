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
        f"    reservedConcurrency: ${{param:reservedConcurrency, null}}\n"
        f"    events:\n"
        f'      - httpApi: {{ path: "{endpoint.path}", method: "*" }}\n'
    )


def missing_from(config: dict[str, Any], folder: Path) -> str:
    """Write the lines that serverless.yml lacks for the endpoints in a folder."""
    missing = ""
    for endpoint in endpoints_in(folder, "functions"):
        function = config["functions"].get(endpoint.module.rpartition(".")[2], {})
        wanted = entry(endpoint)
        events = function.get("events", [])  # a schedule may be beside the route
        if function.get("handler") != wanted["handler"] or not all(event in events for event in wanted["events"]):
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
            "reservedConcurrency": "${param:reservedConcurrency, null}",
            "events": [{"httpApi": {"path": "/api/notes/{id}", "method": "*"}}],
        }
    }
    serverless["functions"].update(yaml.safe_load(missing))
    assert missing_from(serverless, tmp_path) == ""


def test_every_function_has_a_file(serverless: dict[str, Any]) -> None:
    for name, function in serverless["functions"].items():
        module, _, attribute = function["handler"].rpartition(".")
        source = (ROOT / f"{module}.py").read_text("utf-8")
        assert re.search(rf"^({attribute} = |def {attribute}\()", source, re.MULTILINE), name


def test_migrate_has_no_route_and_lambdas_longest_time(serverless: dict[str, Any]) -> None:
    migrate = serverless["functions"]["migrate"]
    assert "events" not in migrate
    assert "url" not in migrate
    assert migrate["timeout"] == 900


def shipped(config: dict[str, Any]) -> set[str]:
    """Give the names at the top of the project that go into the zip."""
    patterns = [pattern for pattern in config["package"]["patterns"] if not pattern.startswith("!")]
    return {pattern.partition("/")[0].removesuffix(".py") for pattern in patterns}


def test_the_zip_holds_only_what_runs(serverless: dict[str, Any]) -> None:
    package = serverless["package"]
    assert package["individually"] is False
    assert package["patterns"][0] == "!**", "first nothing, then what is named"
    assert shipped(serverless) >= {"app", "functions", "migrations", "shared"}
    assert shipped(serverless).isdisjoint({"**", "bench", "docs", "ops", "tests"})


def test_what_is_imported_ships(serverless: dict[str, Any]) -> None:
    folders = {folder.name for folder in ROOT.iterdir() if any(folder.glob("*.py"))}
    rooms = [ROOT / name for name in shipped(serverless)]
    files = [file for room in rooms if room.is_dir() for file in room.rglob("*.py")]
    text = "\n".join(file.read_text("utf-8") for file in files)
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE))
    missing = sorted(imported & folders - shipped(serverless))
    lines = "".join(f"    - {name}/**\n" for name in missing)
    assert not missing, f"add these lines to serverless.yml, under package, patterns:\n{lines}"


def test_requirements_keep_what_the_drivers_look_up(serverless: dict[str, Any]) -> None:
    settings = serverless["custom"]["pythonRequirements"]
    # The plugin's own patterns remove *.dist-info: pg8000 then fails, and psycopg calls itself 0.0.0.0.
    assert settings["slimPatternsAppendDefaults"] is False
    assert not [pattern for pattern in settings["slimPatterns"] if "dist-info" in pattern]
    assert "--only-binary=:all:" in settings["pipCmdExtraArgs"]


def test_one_python_version_builds_and_runs(serverless: dict[str, Any]) -> None:
    version = "${self:custom.python}"
    assert re.fullmatch(r"3\.\d+", serverless["custom"]["python"])
    assert serverless["provider"]["runtime"] == f"python{version}"
    assert f"--python-version {version}" in serverless["custom"]["pythonRequirements"]["pipCmdExtraArgs"]
    hook = serverless["custom"]["scripts"]["hooks"]["before:package:createDeploymentArtifacts"]
    assert hook.startswith(f"python{version} ops/lambda_bytecode.py .serverless/requirements ")
    assert set(hook.split()[3:]) == shipped(serverless) - {"app"}, "what ships is compiled"


def test_the_wheels_are_for_the_processor_that_runs_them(serverless: dict[str, Any]) -> None:
    assert serverless["provider"]["architecture"] == "${param:architecture}"
    platforms = [text for text in serverless["custom"]["pythonRequirements"]["pipCmdExtraArgs"] if "platform" in text]
    assert all(text.endswith("_${self:custom.wheels.${param:architecture}}") for text in platforms)
    assert serverless["custom"]["wheels"] == {"x86_64": "x86_64", "arm64": "aarch64"}


def test_the_database_is_migrated_before_anything_is_changed(serverless: dict[str, Any]) -> None:
    hooks = serverless["custom"]["scripts"]["hooks"]
    program = ".venv/bin/python -m ops.deploy_aws"
    assert hooks["before:deploy:deploy"] == f"{program} migrate --via ${{param:migrateVia}}"
    assert hooks["before:deploy:function:initialize"] == f"{program} check --via ${{param:migrateVia}}"


def test_bytecode_is_compiled_after_the_packages_are_there(serverless: dict[str, Any]) -> None:
    plugins = serverless["plugins"]
    assert plugins.index("serverless-python-requirements") < plugins.index("serverless-plugin-scripts")


def test_the_functions_get_variables_that_exist(serverless: dict[str, Any]) -> None:
    known = {variable.name for variable in VARIABLES}
    of_migrate = serverless["custom"]["migrate"]["lambda"]
    for name, value in {**serverless["provider"]["environment"], **of_migrate}.items():
        if name == "LAMBDA_CLOSE_ON_SIGTERM":
            assert value == "${param:closeOnSigterm}"
            continue
        assert name in known
        assert value == ("${param:databaseUrl}" if name == "DATABASE_URL" else f"${{env:{name}, ''}}")
    assert serverless["params"]["default"]["databaseUrl"] == "${env:DATABASE_URL, ''}"


def test_only_a_function_that_migrates_has_the_admins_password(serverless: dict[str, Any]) -> None:
    assert "ADMIN_INITIAL_PASSWORD" not in serverless["provider"]["environment"]
    assert serverless["functions"]["migrate"]["environment"] == "${self:custom.migrate.${param:migrateVia}}"
    assert serverless["custom"]["migrate"]["here"] == {}


def test_requests_end_before_lambda_and_the_http_api_end_them(serverless: dict[str, Any]) -> None:
    assert Settings.read({}).request_timeout < serverless["provider"]["timeout"] < HTTP_API_TIMEOUT


def test_the_tools_are_pinned(serverless: dict[str, Any]) -> None:
    package = json.loads((ROOT / "package.json").read_text("utf-8"))
    tools = package["devDependencies"]
    assert set(tools) == {"osls", *serverless["plugins"]}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in tools.values())
    assert tools["osls"].startswith(f"{serverless['frameworkVersion']}.")
    assert package["private"] is True

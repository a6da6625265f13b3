"""What `vercel build` put into the function, and what it published."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from shared import __version__
from tests.deploy.conftest import SECRET
from tests.deploy.tools import ROOT
from tests.deploy.vercel_build import Build
from tests.servers.process import free_port
from tests.test_architecture import ALLOWED, AT_THE_FIRST_REQUEST

pytestmark = pytest.mark.deploy

LIMIT = 75e6  # bytes; Vercel's own limit for Python is far above, but a cold start unpacks every one of them
# What the builder adds to what requirements.txt names: the runtime that calls the app, and its environment's pip.
FROM_THE_BUILDER = {"pip", "vercel_runtime"}


def names(build: Build) -> set[str]:
    return set(build.function.files)


def test_there_is_one_function_for_every_path_and_no_file_is_published(vercel_built: Build) -> None:
    assert not (vercel_built.output / "static").exists()
    assert [path.name for path in (vercel_built.output / "functions").iterdir()] == ["python.func"]
    routes = json.loads((vercel_built.output / "config.json").read_text("utf-8"))["routes"]
    catch_all = [route for route in routes if route.get("src") == "/(.*)"]
    assert [route["dest"] for route in catch_all] == ["/python"]
    assert not [route for route in routes if route.get("handle") == "filesystem" and route.get("dest")]


def test_the_function_is_what_vercel_json_asks_for(vercel_built: Build) -> None:
    wanted = json.loads((ROOT / "vercel.json").read_text("utf-8"))["functions"]["app.py"]
    assert vercel_built.function.config["maxDuration"] == wanted["maxDuration"]
    assert vercel_built.function.config["runtime"] == f"python{vercel_built.python.name.removeprefix('python')}"


def test_it_holds_our_code_and_nothing_else_of_the_project(vercel_built: Build) -> None:
    sources = {name for name in names(vercel_built) if not name.startswith("_vendor/") and not name.endswith(".pyc")}
    project = vercel_built.project
    wanted = {
        str(path.relative_to(project)) for room in ("functions", "shared") for path in (project / room).rglob("*.py")
    }
    assert sources == {"app.py", "vc__handler__python.py"} | wanted
    assert "shared/db/schema_head.py" in sources, "by which the running app knows the schema that it was written for"


def test_it_holds_no_secret_and_nothing_local(vercel_built: Build) -> None:
    for name, file in vercel_built.function.files.items():
        assert SECRET.encode() not in file.read_bytes(), name
    # In the project itself: a package may well have a folder of this name.
    mine = {name for name in names(vercel_built) if not name.startswith("_vendor/")}
    assert not [name for name in mine if re.search(r"(^|/)\.|^(bench|docs|migrations|ops|tests)/|\.(sql|md)$", name)]


def test_it_holds_the_packages_of_requirements_txt(vercel_built: Build) -> None:
    installed = {
        re.sub(r"[-_.]+", "-", match[1]).lower(): match[2]
        for name in names(vercel_built)
        if (match := re.fullmatch(r"_vendor/([^/]+)-([^/-]+)\.dist-info/METADATA", name))
    }
    pinned = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", (ROOT / "requirements.txt").read_text("utf-8"), re.M))
    added = {name.replace("_", "-") for name in FROM_THE_BUILDER}
    assert installed.pop("serverless-postgres") == __version__
    assert {name: version for name, version in installed.items() if name not in added} == pinned
    assert set(installed) >= added


def test_nothing_of_ours_is_there_twice(vercel_built: Build) -> None:
    vendored = {name.split("/")[1] for name in names(vercel_built) if name.startswith("_vendor/")}
    assert not vendored & {"app.py", "functions", "shared", "migrations", "ops", "tests", "bench"}


def test_it_is_small(vercel_built: Build) -> None:
    assert vercel_built.function.size < LIMIT


def test_every_module_is_compiled(vercel_built: Build) -> None:
    """A .pyc that is not looked at for changes: a date would not survive the packaging."""
    version = vercel_built.python.name.removeprefix("python").replace(".", "")
    without = [
        name
        for name in names(vercel_built)
        if name.endswith(".py")
        and name != "vc__handler__python.py"
        and re.sub(r"([^/]+)\.py$", rf"__pycache__/\1.cpython-{version}.pyc", name) not in names(vercel_built)
    ]
    assert without == []
    assert "Compiling Python bytecode" in vercel_built.log
    for name in names(vercel_built):
        if name.endswith(".pyc"):
            flags = int.from_bytes(vercel_built.function.files[name].read_bytes()[4:8], "little")
            assert flags == 0b01, f"{name}: PEP 552, a hash that is not checked"


@pytest.mark.parametrize("path", ["/api/health", "/api/db/test"])
def test_a_first_request_loads_little_and_only_bytecode(path: str, vercel_built: Build, vercel_folder: Path) -> None:
    program = f"""
import asyncio, json, sys
sys.path.insert(1, "_vendor")
import app
scope = {{"type": "http", "http_version": "1.1", "method": "GET", "path": "{path}", "raw_path": b"{path}",
         "root_path": "", "query_string": b"", "headers": [], "scheme": "http", "server": None, "client": None}}
sent = []
async def receive(): return {{"type": "http.request", "body": b"", "more_body": False}}
async def send(message): sent.append(message)
asyncio.run(app.app(scope, receive, send))
assert sent[0]["status"] == 503, sent
modules = [m for m in sys.modules.values() if "/_vendor/" in str(getattr(m, "__file__", None))]
ours = [m for m in sys.modules.values() if m.__name__.split(".")[0] in ("app", "functions", "shared")]
import os
print(json.dumps([sorted({{m.__name__.split(".")[0] for m in modules}}),
    [m.__name__ for m in modules + ours if m.__file__.endswith(".py") and not os.path.exists(m.__cached__)]]))
"""
    done = subprocess.run(
        [str(vercel_built.python), "-B", "-c", program],
        cwd=vercel_folder,
        env={"VERCEL": "1", "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded, uncompiled = json.loads(done.stdout.splitlines()[-1])
    assert set(loaded) <= ALLOWED | AT_THE_FIRST_REQUEST
    assert "psycopg" in loaded
    assert uncompiled == []

"""What may import what, and what importing an endpoint may load."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("app", "functions", "shared", "migrations", "ops", "tests", "bench")
MAY_IMPORT = {
    "app": {"functions", "shared"},
    "functions": {"shared"},
    "shared": set(),
    "migrations": {"shared"},
    "ops": {"migrations", "shared"},
    "tests": set(ROOMS),
    "bench": set(ROOMS),
}
ENDPOINTS = sorted(
    f"functions.{file.stem}" for file in (ROOT / "functions").glob("*.py") if not file.stem.startswith("_")
)

# What an endpoint may load when it is imported, and what its first request through Lambda may add.
ALLOWED = {"starlette", "anyio", "typing_extensions", "psycopg"}
AT_THE_FIRST_REQUEST = {"mangum", "psycopg_binary"}
# And what it must not, whatever else is allowed one day: each costs a cold start more than the endpoint itself.
TOO_HEAVY = set("sqlalchemy alembic mako boto3 botocore argon2 msgspec pg8000 typer click rich httpx2 uvicorn".split())


def files() -> list[Path]:
    found = [ROOT / "app.py"]
    for room in ROOMS[1:]:
        found += sorted((ROOT / room).rglob("*.py"))
    return found


def imported(file: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import in line {node.lineno}: write the room's name"
            names.add(str(node.module).split(".")[0])
    return names


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    room = room_of(file)

    upwards = imported(file) & set(ROOMS) - MAY_IMPORT[room] - {room}

    assert not upwards, f"{file.relative_to(ROOT)} imports {', '.join(sorted(upwards))}: {room} may not"


def test_every_room_is_looked_at() -> None:
    assert {room_of(file) for file in files()} >= {"app", "functions", "shared", "migrations", "ops", "tests"}
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert packages <= set(ROOMS)


def test_the_package_of_the_endpoints_is_empty() -> None:
    assert (ROOT / "functions" / "__init__.py").read_bytes() == b""


# -- in a fresh interpreter -------------------------------------------------------------------------

BROKEN = {
    "APP_ENV": "nonsense",
    "NODE_ENV": "nonsense",
    "DATABASE_URL": "nonsense",
    "DATABASE_SSL": "true",
    "DATABASE_DISABLE_SSL": "true",
    "DATABASE_POOL_MAX": "nonsense",
    "REQUEST_TIMEOUT": "nonsense",
    "CORS_ALLOW_ORIGINS": "nonsense",
}


def fresh(program: str, environ: dict[str, str] | None = None) -> str:
    """Run a program in a new interpreter with nothing of this one's environment but what `environ` says."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={**kept, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def packages_of_fresh(statement: str, environ: dict[str, str] | None = None) -> set[str]:
    """Return the names of the installed packages that a statement loads."""
    program = f"""
import json, sys
before = set(sys.modules)
{statement}
loaded = [module for name, module in sys.modules.items() if name not in before]
installed = [m.__name__ for m in loaded if "site-packages" in str(getattr(m, "__file__", None))]
print(json.dumps(sorted({{name.split(".")[0] for name in installed}})))
"""
    return set(json.loads(fresh(program, environ).splitlines()[-1]))


@pytest.mark.parametrize("module", [*ENDPOINTS, "app"])
def test_an_endpoint_loads_little(module: str) -> None:
    loaded = packages_of_fresh(f"import {module}")

    assert "starlette" in loaded
    assert loaded <= ALLOWED
    assert not loaded & TOO_HEAVY


@pytest.mark.parametrize("path", ["/api/health", "/api/db/test"])
def test_a_first_request_loads_little_more(path: str) -> None:
    statement = f"""
import app
class Context:
    def get_remaining_time_in_millis(self): return 9000
http = {{"method": "GET", "path": "{path}", "sourceIp": "192.0.2.1", "protocol": "HTTP/1.1"}}
event = {{"version": "2.0", "rawPath": "{path}", "rawQueryString": "", "headers": {{}},
         "requestContext": {{"http": http}}, "isBase64Encoded": False}}
assert app.handler(event, Context())["statusCode"] == 503
"""
    loaded = packages_of_fresh(statement, {"DATABASE_URL": f"postgresql://u:p@127.0.0.1:{free_port()}/db"})

    assert {"psycopg", "psycopg_binary"} <= loaded
    assert loaded <= ALLOWED | AT_THE_FIRST_REQUEST


def test_an_endpoint_of_one_s_own_that_takes_a_body_loads_little(tmp_path: Path) -> None:
    source = "from shared.web import Endpoint\nendpoint = Endpoint('/x')\n@endpoint.post\ndef f(body: dict): ...\n"
    (tmp_path / "own.py").write_text(source, encoding="utf-8")

    loaded = packages_of_fresh(f"sys.path.insert(0, {str(tmp_path)!r}); import own")

    assert loaded <= ALLOWED


@pytest.mark.parametrize("module", [*ENDPOINTS, "app"])
def test_importing_an_endpoint_reads_no_variable(module: str) -> None:
    """A variable that is read may be wrong, and then the endpoint that should say so is dead."""
    program = f"""
import os, sys, importlib
import psycopg, starlette, asyncio, logging, anyio  # whatever these read is not ours
read = []
class Watched(type(os.environ)):
    def __getitem__(self, key):
        read.append((key, sys._getframe(1).f_code.co_filename))
        return super().__getitem__(key)
os.environ.__class__ = Watched
importlib.import_module({module!r})
print([key for key, _ in read])
"""
    assert fresh(program, BROKEN).strip() in ("[]", "['AWS_LAMBDA_FUNCTION_NAME']")
    fresh(f"import {module}", {**BROKEN, "AWS_LAMBDA_FUNCTION_NAME": "x", "VERCEL": "1"})


SHARED = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "shared").rglob("*.py")
)


def test_every_module_may_be_imported_first() -> None:
    """An import in a circle works or fails by what was imported before it."""
    program = f"""
import importlib, sys, traceback
for module in {SHARED!r}:
    for name in [name for name in sys.modules if name.split(".")[0] == "shared"]:
        del sys.modules[name]
    try:
        importlib.import_module(module)
    except Exception as error:
        print(f"{{module}}: {{error!r}}")
"""
    assert fresh(program) == ""

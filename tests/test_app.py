"""The one app: every endpoint's file is routed, and platforms find what they look for."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

from starlette.testclient import TestClient

import app
from shared.web import Endpoint

ROOT = Path(app.__file__).parent
FILES = sorted(file.stem for file in (ROOT / "functions").glob("*.py") if not file.stem.startswith("_"))


def test_every_file_is_routed() -> None:
    assert {endpoint.module for endpoint in app.endpoints} == {f"functions.{stem}" for stem in FILES}
    assert {"/api/health", "/api/db/test"} <= {endpoint.path for endpoint in app.endpoints}

    with TestClient(app.app) as client:
        for endpoint in app.endpoints:
            if "{" not in endpoint.path:
                assert client.options(endpoint.path).status_code == 405
        assert client.get("/api/nothing").status_code == 404


def test_what_is_read_is_what_is_imported() -> None:
    for file in app.endpoints:
        endpoint = file.load()
        assert isinstance(endpoint, Endpoint)
        assert endpoint.path == file.path
        assert callable(sys.modules[file.module].handler)
        assert file.summary, f"{file.module} does not say in its first line what it answers"


def test_vercel_finds_a_plain_name_and_an_asgi_app() -> None:
    """Vercel's builder looks for the name without running anything; its runtime for three positional parameters."""
    tree = ast.parse((ROOT / "app.py").read_text(encoding="utf-8"))
    assigned = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert assigned.count("app") == 1

    call = type(app.app).__call__
    assert inspect.iscoroutinefunction(call)
    parameters = list(inspect.signature(app.app).parameters.values())
    assert [parameter.kind for parameter in parameters] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 3


def test_importing_it_imports_no_endpoint() -> None:
    program = "import sys, app; print([m for m in sys.modules if m.startswith('functions.')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

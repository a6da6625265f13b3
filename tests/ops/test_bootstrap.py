"""ops/bootstrap.py, which `make` runs before anything is installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ops import bootstrap
from ops.bootstrap import Problem, is_current, is_sound, pip, pip_problem, prepare, require_python, venv_problem
from ops.embedded import ROOT
from tests.ops.checkout import Checkout


def test_old_python_can_parse_it_and_is_told_what_is_needed() -> None:
    tree = ast.parse(Path(bootstrap.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
    with pytest.raises(Problem, match=r"This is Python 3.8, and Python 3.11 or newer is needed"):
        require_python((3, 8))
    require_python((3, 11))


def test_creates_the_environment_once_and_notices_what_makes_it_stale(checkout: Checkout) -> None:
    root = checkout.root
    (root / "requirements.txt").write_text("")  # the real ones take half a minute
    (root / "requirements-dev.txt").write_text("-r requirements.txt\n")
    steps: list[str] = []
    prepare(root, steps.append)
    assert [step.split()[0] for step in steps] == ["Creating", "Installing", "Ready:"]
    venv = root / ".venv"
    assert (venv / "bin" / "db").exists()
    where = [str(venv / "bin" / "python"), "-c", "import shared; print(shared.__file__)"]
    done = subprocess.run(where, cwd="/", capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == root / "shared"

    prepare(root, steps.append)
    assert len(steps) == 3
    (root / "requirements.txt").write_text("# one more package\n")
    assert not is_current(root)

    assert is_sound(venv)
    moved = root.rename(root.with_name("moved"))
    assert not is_sound(moved / ".venv")
    moved.rename(root)
    assert is_sound(venv)
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/usr/bin/python-that-was-uninstalled")
    assert not is_sound(venv)


def test_unreachable_registry_and_missing_package_are_told_apart() -> None:
    python = Path(sys.executable)
    with pytest.raises(Problem, match="registry cannot be reached"):
        pip(python, ["install", "--index-url", "http://127.0.0.1:1/simple", "no-such-package==1"])
    with pytest.raises(Problem, match="registry has no no-such-package==1 for this Python and platform"):
        pip(python, ["install", "--no-index", "no-such-package==1"])


def test_other_failures_are_explained() -> None:
    full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert pip_problem(full).message == "The disk is full."
    hashes = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
    assert "pinned by its hash" in pip_problem(hashes).message
    debian = "The virtual environment was not created successfully because ensurepip is not available."
    assert "sudo apt install python3-venv" in venv_problem(debian).solutions[0]


def test_make_says_what_it_can_do() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("dev", "test", "check", "fmt", "clean", "clean-data"):
        assert f"make {target} " in done.stdout

"""What a machine says that lacks the platforms' tools, and where those that it has are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import tools, vercel_build
from tests.deploy.conftest import or_skip

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the only folder on PATH, which is empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    return tmp_path


def program(file: Path, output: str) -> None:
    """Make a program that prints a line."""
    file.write_text(f"#!/bin/sh\necho '{output}'\n", "utf-8")
    file.chmod(0o755)


def test_without_node_a_build_says_what_to_install(bare_machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vercel_build.main() == 9
    said = capsys.readouterr().out
    assert said == "Error: Install Node 20 or newer with npm, which runs the platform's builder.\n"


@pytest.mark.parametrize(("version", "npm"), [("v18.20.0", True), ("v22.1.0", False), ("none", True)])
def test_an_old_node_or_one_without_npm_is_none(bare_machine: Path, version: str, npm: bool) -> None:
    program(bare_machine / "node", version)
    if npm:
        program(bare_machine / "npm", "10.8.0")
    with pytest.raises(tools.Missing, match="Install Node 20 or newer"):
        tools.node()


def test_a_node_that_is_new_enough_is_found(bare_machine: Path) -> None:
    program(bare_machine / "node", "v22.1.0")
    program(bare_machine / "npm", "10.8.0")
    assert tools.node() == bare_machine / "node"


def test_without_a_python_of_the_platform_it_says_which(bare_machine: Path) -> None:
    with pytest.raises(tools.Missing, match=r"^Install Python 3\.12, 3\.13 or 3\.14, on PATH or with pyenv, which"):
        tools.python(*vercel_build.PYTHONS)


def test_a_python_is_found_on_path_and_under_pyenv_and_a_shim_is_none(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bare_machine / f"python{THIS}", "")  # what a shim is whose version is not switched on
    with pytest.raises(tools.Missing):
        tools.python(THIS)

    folder = bare_machine / "pyenv" / "versions" / f"{THIS}.99" / "bin"
    folder.mkdir(parents=True)
    (folder / f"python{THIS}").symlink_to(sys.executable)
    monkeypatch.setenv("PYENV_ROOT", str(bare_machine / "pyenv"))
    found = tools.python("3.99", THIS)
    assert found == Path(sys.base_prefix, "bin", f"python{THIS}")
    asked = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith(f"Python {THIS}")


def test_a_missing_tool_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Install it"), or_skip():
        raise tools.Missing("Install it.")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(tools.Missing), or_skip():
        raise tools.Missing("Install it.")


def test_what_a_build_copies_has_no_secret_and_no_tool_s_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in (".env", ".git/config", "node_modules/x.js", "functions/__pycache__/x.pyc", "functions/x.py", "app.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    copy = vercel_build.copy_project(source, tmp_path / "copy")
    assert sorted(str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()) == [
        "app.py",
        "functions/x.py",
    ]

"""The platforms' own tools, outside Python's requirements: found on this machine, or installed once under .data/."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".data" / "deploy"
MINIMUM_NODE = 20
_TIMEOUT = 900.0  # seconds for an installation


class Missing(Exception):
    """A tool that this machine does not have; the text says what to install."""


def node() -> Path:
    """Find Node, which has to have npm beside it. Raises Missing."""
    found = shutil.which("node")
    version = _output([found, "--version"]) if found else ""
    major = version.removeprefix("v").partition(".")[0]
    if found is None or not major.isdigit() or int(major) < MINIMUM_NODE or shutil.which("npm") is None:
        raise Missing(f"Install Node {MINIMUM_NODE} or newer with npm, which runs the platform's builder.")
    return Path(found)


def python(*versions: str) -> Path:
    """Find an interpreter of the first of these versions that is there, on PATH or under pyenv. Raises Missing.

    What is returned is no shim: a shim works only where the version is switched on.
    """
    for version in versions:
        for candidate in _pythons(version):
            program = "import sys; print(sys.base_prefix)"
            prefix = _output([str(candidate), "-c", program])
            real = Path(prefix, "bin", f"python{version}")
            if prefix and real.exists():
                return real
    names = f"{', '.join(versions[:-1])} or {versions[-1]}" if len(versions) > 1 else versions[0]
    raise Missing(f"Install Python {names}, on PATH or with pyenv, which the platform runs the function with.")


def _pythons(version: str) -> Iterator[Path]:
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield Path(on_path)
    pyenv = os.environ.get("PYENV_ROOT") or (_output(["pyenv", "root"]) if shutil.which("pyenv") else "")
    if pyenv:
        yield from sorted(Path(pyenv, "versions").glob(f"{version}.*/bin/python{version}"), reverse=True)


def npm_packages(name: str, manifest: Path) -> Path:
    """Install what a package.json names, once for each content of it; return the folder with node_modules."""
    node()
    with _once(name, manifest.read_bytes()) as (folder, fresh):
        if fresh is not None:
            shutil.copy(manifest, fresh / "package.json")
            npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
            _install(name, npm, fresh)
    return folder


def python_packages(name: str, requirements: Path, *options: str) -> Path:
    """Install a requirements file's packages apart from .venv, once for each content of it; return their folder.

    `options` are pip's, such as those for another version of Python.
    """
    with _once(name, requirements.read_bytes()) as (folder, fresh):
        if fresh is not None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            _install(name, [*pip, *options, "--target", str(fresh), "--requirement", str(requirements)], fresh)
    return folder


@contextmanager
def _once(name: str, content: bytes) -> Iterator[tuple[Path, Path | None]]:
    """Give the folder that content installs into, and where to install it first; None where it is there already."""
    folder = CACHE / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    if folder.is_dir():
        yield folder, None
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"Installing {name} into {CACHE.relative_to(ROOT)} ...", file=sys.stderr)  # noqa: T201
    fresh = Path(tempfile.mkdtemp(prefix=f"{name}-new-", dir=CACHE))
    try:
        yield folder, fresh
        if not folder.is_dir():  # another process may have been faster
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _install(name: str, command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{name} could not be installed within {_TIMEOUT:g} s; check the network.") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise Missing(f"{name} could not be installed; check the network. What {command[0]} says: {words[-1]}")


def _output(command: Sequence[str]) -> str:
    """Return what a program prints, nothing where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

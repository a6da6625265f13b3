"""The zip for Lambda, packaged by osls from a throw-away copy of the project, once for each content of it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deploy import tools
from tests.deploy.vercel_build import copy_project

HERE = Path(__file__).parent
# In the template; tests that deploy put a database of theirs in its place.
DATABASE_URL = "postgresql://app:secret-of-the-database@db.example.com/app"
PASSWORD = "Correct-Horse-9-Battery"  # of the first admin user
LIMIT = 20_000_000  # bytes of the zip
_KEPT = 3  # packages that stay for the next run
_INPUTS = ("app.py", "functions", "migrations", "shared", "ops", "requirements.txt", "serverless.yml", "package.json")


@dataclass(frozen=True)
class Bundle:
    """What osls left: its folder `.serverless`, and what it said."""

    folder: Path
    python: Path  # of Lambda's version

    @property
    def zip(self) -> Path:
        """The zip of all functions."""
        return self.folder / "serverless-postgres.zip"

    def names(self) -> list[str]:
        """Return the names in the zip."""
        with zipfile.ZipFile(self.zip) as archive:
            return archive.namelist()

    def unpack(self, folder: Path) -> Path:
        """Lay the files out as Lambda does in /var/task."""
        with zipfile.ZipFile(self.zip) as archive:
            archive.extractall(folder)
        return folder


def runtime_version() -> str:
    """Return the version of Python that serverless.yml names."""
    version: str = yaml.safe_load((tools.ROOT / "serverless.yml").read_text("utf-8"))["custom"]["python"]
    return version


def osls_environment(**variables: str) -> dict[str, str]:
    """Return what osls needs in its environment, and nothing of this machine's own settings. Raises tools.Missing."""
    python = tools.python(runtime_version())
    inherited = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    return {
        **inherited,
        # PATH beside the rest of the machine's: pip and npm may have settings of their own.
        **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "NPM_", "npm_", "SSL_"))},
        "PATH": os.pathsep.join((str(python.parent), os.environ["PATH"])),
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
        **variables,
    }


def python_packages(name: str, requirements: str) -> Path:
    """Install a requirements file of this folder for Lambda's Python; return the folder. Raises tools.Missing."""
    options = ("--python-version", runtime_version(), "--ignore-requires-python", "--only-binary=:all:", "--no-deps")
    return tools.python_packages(name, HERE / requirements, *options)


def project(folder: Path) -> Path:
    """Copy the project, with osls in a node_modules of its own. Raises tools.Missing."""
    osls = tools.npm_packages("osls", tools.ROOT / "package.json")
    copy_project(tools.ROOT, folder)
    (folder / "node_modules").mkdir()
    for installed in (osls / "node_modules").iterdir():
        (folder / "node_modules" / installed.name).symlink_to(installed)
    return folder


def osls(
    project: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run osls in a project; its output and its hooks' are one text."""
    return subprocess.run(
        [str(project / "node_modules" / ".bin" / "osls"), *arguments],
        cwd=project,
        env=osls_environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )


def package(scratch: Path, clutter: Callable[[Path], None]) -> Bundle:
    """Package this checkout, with what lies about on a developer's machine in it; not again where nothing changed.

    Raises tools.Missing where this machine lacks Node or Lambda's Python.
    """
    python = tools.python(runtime_version())
    tools.node()
    tools.CACHE.mkdir(parents=True, exist_ok=True)
    with (tools.CACHE / "aws-package.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test processes one packages
        folder = tools.CACHE / f"aws-package-{_digest(python)}"
        if not folder.is_dir():
            copy = project(scratch / "package")
            clutter(copy)
            done = osls(copy, "package", variables={"DATABASE_URL": DATABASE_URL, "ADMIN_INITIAL_PASSWORD": PASSWORD})
            assert done.returncode == 0, done.stdout
            shutil.rmtree(copy / ".serverless" / "requirements")
            (copy / ".serverless").rename(folder)
            packages = sorted(tools.CACHE.glob("aws-package-*/"), key=lambda path: path.stat().st_mtime)
            for old in packages[:-_KEPT]:
                shutil.rmtree(old)
    return Bundle(folder, python)


def _digest(python: Path) -> str:
    digest = hashlib.sha256(str(python).encode())
    for name in _INPUTS:
        path = tools.ROOT / name
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(tools.ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]

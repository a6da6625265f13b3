"""Build as Vercel does, with its own command line, in a throw-away copy: `make build-vercel`.

The copy lies in a folder of its own, because the builder writes into the project. Nothing is uploaded and no login is
needed. The build hook runs too, on a database that is made for it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ops.embedded import find_binaries
from ops.postgres_server import PostgresServer
from shared.errors import Error, LocalEnvironmentError
from tests.deploy import tools
from tests.servers.process import free_port

PYTHONS = ("3.12", "3.13", "3.14")  # what Vercel runs; the builder takes the first that pyproject.toml allows
_HERE = Path(__file__).parent / "vercel"
_TIMEOUT = 300.0  # seconds for a build
# What a person's shell may hold and a build must not see: it would migrate the database that is named there.
_NOT_INHERITED = re.compile(
    r"(DATABASE|POSTGRES|MIGRATION|ADMIN|VERCEL|AWS|PG|UV)[A-Z_]*|DIRECT_URL|(APP|NODE)_ENV|CI|VIRTUAL_ENV|NOW_BUILDER"
)
# What no repository holds. Everything else is there, as it would be on the platform.
_MADE_BY_TOOLS = (".*", "__pycache__", "node_modules", "*.egg-info")


@dataclass(frozen=True)
class Function:
    """The one function that a build made: its files by their names in the bundle, and its configuration."""

    files: Mapping[str, Path]
    config: Mapping[str, Any]
    python: Path

    @property
    def size(self) -> int:
        """The bytes of its files, which Vercel limits."""
        return sum(file.stat().st_size for file in self.files.values())

    def copy_to(self, folder: Path) -> None:
        """Lay the files out as an instance finds them."""
        for name, file in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)


@dataclass(frozen=True)
class Build:
    """What `vercel build` did to a copy of a project."""

    project: Path
    python: Path
    code: int
    log: str

    @property
    def output(self) -> Path:
        """The folder that would be uploaded."""
        return self.project / ".vercel" / "output"

    @cached_property
    def function(self) -> Function:
        """The function. Raises ValueError where the build made none, or several."""
        (folder,) = (self.output / "functions").glob("*.func")
        config = json.loads((folder / ".vc-config.json").read_text("utf-8"))
        files = {name: self.project / path for name, path in config.pop("filePathMap").items()}
        for file in folder.rglob("*"):
            if file.is_file() and file.name != ".vc-config.json":
                files[str(file.relative_to(folder))] = file
        return Function(files, config, self.python)


def copy_project(source: Path, target: Path) -> Path:
    """Copy a project as it would be uploaded: without the tools' own folders and without `.env`."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_MADE_BY_TOOLS))
    return target


def build(project: Path, variables: Mapping[str, str]) -> Build:
    """Run `vercel build` in a project, with these environment variables and those of vercel.json's `build.env`.

    The command line sends the latter along with a deployment, and does not set them in a local build. Raises
    tools.Missing where this machine lacks Node or a Python that Vercel runs.
    """
    node = tools.node()
    python = tools.python(*PYTHONS)
    cli = tools.npm_packages("vercel", _HERE / "package.json")
    uv = tools.python_packages("uv", _HERE / "requirements.txt")
    settings = project / ".vercel" / "project.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"projectId": "prj_local", "orgId": "team_local", "settings": {"framework": None}}))
    _share_downloads(project)
    kept = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
    declared = json.loads((project / "vercel.json").read_text("utf-8")).get("build", {}).get("env", {})
    environ = {
        **kept,
        "PATH": os.pathsep.join((str(python.parent), str(uv / "bin"), kept["PATH"])),
        "VERCEL_TELEMETRY_DISABLED": "1",
        "VERCEL_BUILD_ARCH": platform.machine().replace("arm64", "aarch64"),
        "UV_LINK_MODE": "copy",  # the downloads may lie on another disk
        **declared,
        **variables,
    }
    # --global-config: no login of this machine's user, and none left behind.
    command = [str(node), str(cli / "node_modules" / "vercel" / "dist" / "index.js"), "build", "--yes"]
    command += ["--global-config", str(tools.CACHE / "vercel-config")]
    done = subprocess.run(
        command,
        cwd=project,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_TIMEOUT,
        check=False,
    )
    return Build(project, python, done.returncode, done.stdout)


def _share_downloads(project: Path) -> None:
    """Let the builds share what uv downloads, without the lock file of another project that would lie beside it."""
    shared = tools.CACHE / "uv-downloads"
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "uv.lock").unlink(missing_ok=True)
    cache = project / ".vercel" / "python" / "cache" / "uv"
    cache.parent.mkdir(parents=True)
    cache.symlink_to(shared)


def main() -> int:
    """Build this checkout with a database of its own; print where the result is and how large."""
    project = tools.CACHE / "vercel-build"
    shutil.rmtree(project, ignore_errors=True)
    try:
        tools.node()
        tools.python(*PYTHONS)
        copy_project(tools.ROOT, project)
        with tempfile.TemporaryDirectory() as folder:
            server = PostgresServer(
                find_binaries(_say),
                Path(folder, "data"),
                port=free_port(),
                user="vercel",
                password=secrets.token_hex(8),
            )
            server.init()
            server.start()
            try:
                variables = {"VERCEL_ENV": "production", "ADMIN_INITIAL_PASSWORD": secrets.token_hex(8)}
                done = build(project, {"DATABASE_URL": server.url(), **variables})
            finally:
                server.stop()
    except (tools.Missing, Error) as error:
        _say("\n  - ".join([f"Error: {error}", *getattr(error, "solutions", ())]))
        return LocalEnvironmentError.exit_code
    _say(done.log.rstrip())
    if done.code != 0:
        return done.code
    compiled = sum(file.stat().st_size for name, file in done.function.files.items() if name.endswith(".pyc"))
    _say(f"The function has {done.function.size / 1e6:.0f} MB, {compiled / 1e6:.0f} MB of it bytecode.")
    _say(f"Output: {done.output.relative_to(tools.ROOT)}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

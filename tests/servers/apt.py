"""Debian packages without installing them: apt with state of its own, so that it needs no root and changes nothing.

The mirror is the one in the system's own sources.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

UPDATE_TIMEOUT = 300.0  # seconds; about 20 MB of package lists


class AptError(Exception):
    """apt did not do it; the text is its own last words."""


class PrivateApt:
    """apt-get with lists and cache under `directory`, and the sources of this system's release plus `source_release`.

    Raises AptError, also where there is no apt.
    """

    def __init__(self, directory: Path, source_release: str) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise AptError("this system has no apt-get")
        self._directory = directory
        self._config = directory / "apt.conf"
        for folder in ("lists/partial", "cache/archives/partial"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        mirrors = self._mirrors()
        signed_by = self._signed_by()
        lines = [f"deb {signed_by}{uri} {release} {component}" for uri, release, component in mirrors]
        lines.append(f"deb-src {signed_by}{mirrors[0][0]} {source_release} main")
        (directory / "sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._config.write_text(
            f'Dir::Etc::sourcelist "{directory}/sources.list";\n'
            'Dir::Etc::sourceparts "-";\n'
            f'Dir::State "{directory}";\n'
            'Dir::State::status "/var/lib/dpkg/status";\n'
            f'Dir::Cache "{directory}/cache";\n'
            'APT::Sandbox::User "";\n'
            'Acquire::Languages "none";\n'
            'Acquire::Retries "2";\n',
            encoding="utf-8",
        )

    def update(self) -> None:
        """Fetch the package lists; some may be missing (a mirror that has no such source release)."""
        try:
            self._run(["apt-get", "update"], timeout=UPDATE_TIMEOUT)
        except AptError:
            if not list((self._directory / "lists").glob("*Packages*")):
                raise

    def library_dependencies(self, package: str) -> list[str]:
        """Return the names of the libraries that `package` depends on directly, without the C library."""
        text = self._run(["apt-cache", "show", "--no-all-versions", package])
        depends = re.search(r"^Depends: (.*)$", text, re.MULTILINE)
        names = re.findall(r"(?:^|, )(lib[\w.+-]+)", depends[1] if depends else "")
        return [name for name in names if name != "libc6"]

    def unpack(self, packages: list[str], root: Path) -> None:
        """Download packages of this system's release and unpack them under `root`."""
        archives = self._directory / "archives"
        archives.mkdir(exist_ok=True)
        self._run(["apt-get", "download", *packages], cwd=archives)
        root.mkdir(parents=True, exist_ok=True)
        for archive in archives.glob("*.deb"):
            self._run(["dpkg", "-x", str(archive), str(root)])
            archive.unlink()

    def source(self, package: str, folder: Path) -> Path:
        """Download a source package of the source release; return its upstream tar file."""
        folder.mkdir(parents=True, exist_ok=True)
        self._run(["apt-get", "source", "--download-only", "--only-source", package], cwd=folder)
        return next(folder.glob(f"{package}_*.orig.tar.*z"))

    def _mirrors(self) -> list[tuple[str, str, str]]:
        """Return (URI, release, component) of this system's own release, its base release first."""
        codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        # --no-release-info: a system without package lists shows its sources too.
        ask = ["apt-get", "indextargets", "--no-release-info", "Created-By: Packages", "--format"]
        listed = self._run([*ask, "$(REPO_URI) $(RELEASE) $(COMPONENT)"], private=False)
        found = {
            (uri, release, component)
            for uri, release, component in (line.split(" ") for line in listed.splitlines())
            if codename and release.split("-")[0] == codename and component in ("main", "universe")
        }
        if not any(release == codename for _, release, _ in found):
            raise AptError(f"apt's sources do not have {codename or 'this release'}")
        return sorted(found, key=lambda mirror: mirror[1:])

    def _signed_by(self) -> str:
        distribution = platform.freedesktop_os_release().get("ID", "")
        keys = Path(f"/usr/share/keyrings/{distribution}-archive-keyring.gpg")
        return f"[signed-by={keys}] " if keys.exists() else ""

    def _run(self, command: list[str], *, cwd: Path | None = None, timeout: float = 120.0, private: bool = True) -> str:
        environ = {**os.environ, "LC_ALL": "C"}
        if private:
            environ["APT_CONFIG"] = str(self._config)
        try:
            done = subprocess.run(
                command, cwd=cwd, env=environ, timeout=timeout, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AptError(f"`{' '.join(command[:2])}` took longer than {timeout:.0f} seconds") from error
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            raise AptError("; ".join(said) or f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
        return done.stdout

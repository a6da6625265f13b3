"""A Chromium for the tests: the one that CHROMIUM names, one from npm that is unpacked, or the machine's own.

`python -m tests.browser.chromium` makes it ready. Nothing needs root, and nothing outside .data/ is changed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.deploy.tools import Missing, npm_packages

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MANIFEST = Path(__file__).with_name("package.json")
INSTALL = "make test-browser, or set CHROMIUM to the path of a Chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",  # it may run as root here, and opens our own page only
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PROGRAMS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
_UNPACK = """
const { readFileSync, writeFileSync } = require("fs"), { brotliDecompressSync } = require("zlib");
const [from, to] = process.argv.slice(1);
writeFileSync(to, brotliDecompressSync(readFileSync(from)));
"""
# Open Sans comes with the package; without a font of the machine's own there would be nothing to see.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{here}/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{here}/cache</cachedir>
  <alias binding="strong"><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


class Program(NamedTuple):
    """An executable, and what it needs in its environment."""

    path: Path
    environ: dict[str, str]


def find() -> Program:
    """Find a Chromium, and unpack npm's where that is to be had. Raises Missing."""
    named = os.environ.get("CHROMIUM")
    if named:
        if not os.access(named, os.X_OK):
            raise Missing(f"CHROMIUM is {named}, which is no program.")
        return Program(Path(named), {})
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return _unpacked()
    for found in (*map(shutil.which, _PROGRAMS), str(_MAC) if _MAC.exists() else None):
        if found is not None:
            return Program(Path(found), {})
    raise Missing(f"There is no Chromium on this machine: {INSTALL}.")


def axe() -> str:
    """Give axe-core's script. Raises Missing."""
    return (npm_packages("browser", MANIFEST) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@contextmanager
def running() -> Iterator[Browser]:
    """Run it without a window. Raises Missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise Missing(f"playwright is not installed: {INSTALL}.") from None
    program = find()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program.path, args=list(FLAGS), env={**os.environ, **program.environ}
        )
        try:
            yield browser
        finally:
            browser.close()


def _unpacked() -> Program:
    packages = npm_packages("browser", MANIFEST)
    ready = packages / "chromium"
    if not ready.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix="chromium-new-", dir=packages))
        try:
            _unpack(packages / "node_modules" / "@sparticuz" / "chromium" / "bin", fresh)
            (fresh / "fonts.conf").write_text(_FONTS.format(here=ready), "utf-8")
            fresh.chmod(0o755)
            if not ready.is_dir():  # another process may have been faster
                fresh.rename(ready)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    environ = {"LD_LIBRARY_PATH": f"{ready}/lib:{ready}", "FONTCONFIG_FILE": f"{ready}/fonts.conf"}
    return Program(ready / "chromium", environ)


def _unpack(archives: Path, folder: Path) -> None:
    for archive in archives.glob("*.br"):
        target = folder / archive.stem
        subprocess.run(["node", "-e", _UNPACK, str(archive), str(target)], check=True)
        if target.suffix == ".tar":
            with tarfile.open(target) as tar:
                # Python 3.11.2, Debian 12's, has no filters yet.
                tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                tar.extractall(folder)
            target.unlink()
    (folder / "chromium").chmod(0o755)


def main() -> int:
    """Make it ready and say which it is; return the exit code."""
    try:
        with running() as browser:
            print(f"Chromium {browser.version}", flush=True)  # noqa: T201
            axe()
    except Missing as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

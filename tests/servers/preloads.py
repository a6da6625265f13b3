"""Libraries that stand between a process and its system, where the distribution has them: nss_wrapper, for its names.

`python -m tests.servers.install` unpacks them, and installs nothing. A process gets one by LD_PRELOAD.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.apt import PrivateApt
from tests.servers.binaries import CACHE, INSTALL, Unavailable

PACKAGES = {"libnss-wrapper": "libnss_wrapper.so"}
DIRECTORY = CACHE / "preloads"
UNAVAILABLE = CACHE / "preloads.unavailable"


def library(package: str) -> Path:
    """Give a package's library. Raises Unavailable with the reason."""
    if UNAVAILABLE.exists():
        raise Unavailable(UNAVAILABLE.read_text("utf-8").strip())
    found = list(DIRECTORY.glob(f"**/{PACKAGES[package]}"))
    if not found:
        raise Unavailable(f"{package} is not there for the tests: run `{INSTALL}`")
    return found[0]


def is_untried() -> bool:
    """Tell whether nobody has tried to get them."""
    return not DIRECTORY.is_dir() and not UNAVAILABLE.exists()


def unpack(apt: PrivateApt, ready: Path) -> None:
    """Unpack the packages and what they need into `ready`."""
    needed = [dependency for package in PACKAGES for dependency in apt.library_dependencies(package)]
    apt.unpack([*PACKAGES, *needed], ready)


def cannot(reason: str) -> None:
    """Write down why they are not to be had."""
    text = f"{', '.join(PACKAGES)}: not available: {reason}. Tests that need it are skipped; optional."
    UNAVAILABLE.write_text(text + "\n", encoding="utf-8")

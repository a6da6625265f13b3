"""A file system of a few megabytes, which a test fills: in memory, mounted by root, or by who may become root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.binaries import Unavailable

FILLER = "filler"


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """Mount one of `size` bytes at a new folder, for the block. Raises Unavailable where nobody may."""
    root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    path.mkdir()
    options = f"size={size},mode=755,uid={os.geteuid()},gid={os.getegid()}"
    try:
        subprocess.run(
            [*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace").strip()
        raise Unavailable(f"A file system of its own cannot be mounted here: {said or error}") from error
    try:
        yield path
    finally:
        subprocess.run([*root, "umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on it."""
    with (disk / FILLER).open("ab") as filler:
        while left := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize:
            os.posix_fallocate(filler.fileno(), filler.seek(0, os.SEEK_END), left)


def make_room(disk: Path) -> None:
    """Let it be as before."""
    (disk / FILLER).unlink(missing_ok=True)

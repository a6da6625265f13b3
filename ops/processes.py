"""Child processes: who runs them, whether they live, and that they end with their parent."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded here, because nothing may be loaded between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Identity:
    """Who runs a program that refuses to run as root: a prefix to its command, or a user and group."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def popen(self) -> dict[str, Any]:
        """The arguments of subprocess.Popen that make the child this user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give `path` and all below it to this user, unless it is theirs already."""
        if self.uid is None or self.gid is None or path.stat().st_uid == self.uid:
            return
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder) / name, self.uid, self.gid, follow_symlinks=False)
        os.chown(path, self.uid, self.gid)


OURSELVES = Identity()


def not_root(directory: Path, can_run: Callable[[Identity], bool]) -> Identity | None:
    """Choose who may run a program in `directory`, which becomes theirs; None when nobody can.

    A plain user: themselves. Root: the directory's owner, else the user nobody; where the files are out of
    their reach, root in an unmapped user namespace, which inside is not root and outside owns root's files.
    """
    if os.geteuid() != 0:
        return OURSELVES
    import pwd  # POSIX only, and so is root

    candidates = []
    owner = directory.stat().st_uid
    try:
        account = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
        candidates.append(Identity((), account.pw_uid, account.pw_gid))
    except KeyError:  # a bare container may have no such user
        pass
    if which("unshare"):
        candidates.append(Identity(("unshare", "--user"), 0, 0))
    for candidate in candidates:
        candidate.own(directory)
        if can_run(candidate):
            return candidate
    return None


def die_with_parent() -> None:
    """In a child before its exec: have Linux send it SIGINT when the parent's thread ends (prctl(2))."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def is_alive(pid: int) -> bool:
    """Tell whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_postmaster(pid: int, data_dir: Path) -> bool:
    """Tell whether `pid` is a living postgres that works in `data_dir`: process ids are used again."""
    if Path("/proc/self/cwd").exists():
        proc = Path("/proc") / str(pid)
        try:
            return (proc / "cwd").resolve(strict=True) == data_dir
        except PermissionError:  # another user's: its name is all we may see
            return (proc / "comm").read_text().strip() == "postgres"
        except OSError:  # gone, or a zombie
            return False
    ps = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return Path(ps.stdout.strip()).name.startswith("postgres")

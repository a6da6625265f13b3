"""What initdb, postgres and the dynamic linker say when they fail -> one error that says what to do."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import LocalEnvironmentError

_PORT_TAKEN = r"could not (?:bind|create any TCP/IP sockets)"
_DISK_FULL = "No space left on device"
_OTHER_OWNER = "Run as the user that owns it, or change its owner with chown -R."
_OTHER_BINARIES = "Or install PostgreSQL 16 or newer yourself and set DATABASE_URL."

# (what they say, our message, solutions); the first match wins. The texts are those of PostgreSQL 16 to 18
# with LC_ALL=C.
_CAUSES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        r"error while loading shared libraries: ([^:\s]+)|Library not loaded: (\S+)",
        "PostgreSQL cannot start: the shared library {what} is missing on this machine.",
        ("Install the system package that contains it.", _OTHER_BINARIES),
    ),
    (
        r"version `(GLIBC_[\d.]+)' not found",
        "PostgreSQL cannot start: its binaries need {what}, and this system's C library is older.",
        ("Use a newer system.", _OTHER_BINARIES),
    ),
    (
        _PORT_TAKEN,
        "Port {port} on 127.0.0.1 is taken, so PostgreSQL cannot listen there.",
        ("Stop the program that uses the port, or set POSTGRES_PORT to another one.",),
    ),
    (
        rf"shared memory segment.*{_DISK_FULL}|could not map anonymous shared memory",
        "PostgreSQL cannot start: there is too little shared memory.",
        ("Free some memory; a container takes --shm-size=256m.",),
    ),
    (
        rf"{_DISK_FULL}|Disk quota exceeded|wrote only \d+ of \d+ bytes",
        "PostgreSQL cannot start: the disk that holds {data_dir} is full.",
        ("Free some space (a new cluster needs about 50 MB), then start again.",),
    ),
    (
        r'lock file "postmaster.pid" already exists|pre-existing shared memory block',
        "Another PostgreSQL server is already using {data_dir}.",
        ("Stop that server first.",),
    ),
    (
        r"has wrong ownership|must be started by the user that owns",
        "{data_dir} belongs to another user.",
        (_OTHER_OWNER,),
    ),
    (
        r"(?:FATAL|PANIC|initdb: error|initdb: detail):\s+(.+)",
        "PostgreSQL cannot start: {what}.",
        ("Look at {log_file}.",),
    ),
)


class PortTaken(LocalEnvironmentError):
    """Another program listens where PostgreSQL should."""


def explain(output: str, *, port: int, data_dir: Path, log_file: Path) -> LocalEnvironmentError:
    """Return the error for what a program printed or logged before it ended."""
    for pattern, message, solutions in _CAUSES:
        if match := re.search(pattern, output):
            facts = {
                "what": next((group for group in match.groups() if group), ""),
                "port": port,
                "data_dir": data_dir,
                "log_file": log_file,
            }
            kind = PortTaken if pattern is _PORT_TAKEN else LocalEnvironmentError
            return kind(message.format(**facts), solutions=[line.format(**facts) for line in solutions])
    last = (output.strip().splitlines() or ["it ended without a message"])[-1]
    return LocalEnvironmentError(f"PostgreSQL cannot start: {last}.", solutions=[f"Look at {log_file}."])


def other_owner(path: Path) -> LocalEnvironmentError:
    return LocalEnvironmentError(f"No permission for {path}: it belongs to another user.", solutions=[_OTHER_OWNER])


@contextmanager
def translated_os_errors(data_dir: Path, bin_dir: Path | None = None) -> Iterator[None]:
    """Turn the operating system's refusals into ours; anything unforeseen passes as it is."""
    try:
        yield
    except OSError as error:
        path = Path(error.filename or data_dir)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise explain(_DISK_FULL, port=0, data_dir=data_dir, log_file=data_dir) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise other_owner(path) from error
        if error.errno == errno.EROFS:
            raise LocalEnvironmentError(
                f"{path} is on a read-only file system.", solutions=["Work in a checkout that can be written."]
            ) from error
        if error.errno in (errno.ENOENT, errno.ENOEXEC) and bin_dir is not None and path.is_relative_to(bin_dir):
            raise LocalEnvironmentError(
                f"The PostgreSQL binaries in {bin_dir} do not run on this system.",
                solutions=["Install PostgreSQL 16 or newer yourself and set DATABASE_URL."],
            ) from error
        raise

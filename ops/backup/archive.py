"""Read a dump: its header, every byte of it, and into programs that want it."""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import NamedTuple

from ops.backup import manifest, storage
from ops.backup.manifest import Manifest
from ops.backup.progress import Bar, bar
from ops.backup.storage import Place
from ops.backup.tools import Tools, choose
from ops.processes import die_with_parent
from shared.errors import BackupError

_CHUNK = 1024 * 1024
_MAGIC = b"PGDMP"
# What `feed` gives where whoever takes the program's output has ended: the reason is there, then.
BROKEN_PIPE = "Broken pipe"


class Backup(NamedTuple):
    """A dump in its place, and its manifest; None where it has none."""

    place: Place
    name: str
    size: int
    manifest: Manifest | None

    @property
    def text(self) -> str:
        """Say where it is."""
        return os.path.join(self.place.text, self.name)  # noqa: PTH118 - not only paths


class Header(NamedTuple):
    """What a dump says of itself."""

    server_version: str
    pg_dump_version: str
    database: str

    @property
    def server_major(self) -> int:
        """Give the major version of the server that was dumped."""
        return int(self.server_version.partition(".")[0])

    @property
    def pg_dump_major(self) -> int:
        """Give the major version of the pg_dump that wrote it."""
        return int(self.pg_dump_version.partition(".")[0])


def find(where: str, *, newest: bool = False) -> Backup:
    """Find a dump by its address, or with `newest` a folder's newest that has a manifest. Raises BackupError."""
    place, name = storage.locate(where)
    sizes = place.sizes()
    if name is None and not newest:
        raise BackupError(f"{place.text} is no dump.", solutions=[f"Name one of: db backups {place.text}"])
    if name is None:
        whole = sorted(name for name in sizes if manifest.series_in(name) and manifest.manifest_name(name) in sizes)
        if not whole:
            raise BackupError(f"There is no backup in {place.text}.", solutions=["Make one: db backup --to FOLDER"])
        name = max(whole, key=lambda name: name[-len("yyyymmddThhmmssZ.dump") :])
    if name not in sizes:
        raise BackupError(
            f"There is no {name} in {place.text}.", solutions=[f"See what is there: db backups {place.text}"]
        )
    beside = manifest.manifest_name(name)
    known = Manifest.parse(storage.read_all(place, beside), beside) if beside in sizes else None
    return Backup(place, name, sizes[name], known)


def header(backup: Backup) -> Header:
    """Read a dump's header. Raises BackupError where it is none in pg_dump's custom format."""
    with backup.place.read(backup.name) as file, tempfile.TemporaryFile() as listed, tempfile.TemporaryFile() as errors:
        chunk = file.read(_CHUNK)
        if not chunk.startswith(_MAGIC):
            raise _not_a_dump(backup, chunk)
        program = choose(at_least=_needed(chunk), purpose="Reading this dump")
        command = [program.path("pg_restore"), "--list", "--format=custom"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=listed, stderr=errors, env=program.environ)
        # It stops listening behind the table of contents.
        while chunk and _give(process, chunk):
            chunk = file.read(_CHUNK)
        _end(process)
        process.wait()
        listed.seek(0)
        errors.seek(0)
        contents, said = listed.read().decode(errors="replace"), errors.read().decode(errors="replace")
    found = [re.search(rf"(?m)^; +{label}: (.+)$", contents) for label in (
        "Dumped from database version", "Dumped by pg_dump version", "dbname")]  # fmt: skip
    if not all(found):
        raise damaged(backup, brief(words_of(said)))
    return Header(*(match[1].strip() for match in found if match))


def check(backup: Backup, program: Tools) -> None:
    """Read a dump in full: its SHA-256 is the manifest's, and pg_restore reads every block of it.

    Raises BackupError. Nothing else is touched.
    """
    known = backup.manifest
    if known is not None and known.size != backup.size:
        raise damaged(backup, f"it has {backup.size} bytes, and its manifest says {known.size}")
    with bar("Reading", backup.size) as shown:
        said = feed(
            backup, [program.path("pg_restore"), "--format=custom", f"--file={os.devnull}"], program.environ, shown
        )
    if said is not None:
        raise damaged(backup, brief(said))


def feed(
    backup: Backup,
    command: Sequence[str],
    environ: dict[str, str],
    shown: Bar,
    *,
    output: int | None = None,
) -> str | None:
    """Run a program on a dump; give what it said where it failed.

    The program gets the last piece only when all that came before it, and this piece, have the manifest's SHA-256:
    what was changed since it was checked never reaches its end. Raises BackupError then.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if output is None else output,
            stderr=errors,
            env=environ,
            preexec_fn=die_with_parent if os.name == "posix" else None,
        )
        try:
            _pour(backup, process, shown)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            _end(process)
        if code == 0:
            return None
        if code == -signal.SIGPIPE:
            return BROKEN_PIPE
        errors.seek(0)
        return words_of(errors.read().decode(errors="replace")) or f"{command[0]} was ended (exit code {code})"


def _pour(backup: Backup, process: subprocess.Popen[bytes], shown: Bar) -> None:
    assert process.stdin is not None
    digest, listening, held = sha256(), True, b""
    with backup.place.read(backup.name) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            shown.advance(len(chunk))
            listening = listening and _give(process, held)
            held = chunk
    if backup.manifest is not None and digest.hexdigest() != backup.manifest.sha256:
        raise damaged(backup, "its SHA-256 is not the one in its manifest")
    if listening:
        _give(process, held)
    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # what is buffered has no reader any more
        process.stdin.close()


def _give(process: subprocess.Popen[bytes], chunk: bytes) -> bool:
    """Write to a program; False where it has ended. It may have all it wants, or have failed: its exit code tells."""
    assert process.stdin is not None
    try:
        process.stdin.write(chunk)
        process.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def brief(said: str) -> str:
    """Shorten what a program said to a part of a sentence."""
    text = " ".join(said.split())
    return (text if len(text) <= 600 else f"{text[:600]} ...").rstrip(".")


def damaged(backup: Backup, why: str) -> BackupError:
    """Say that a dump cannot be trusted."""
    return BackupError(
        f"{backup.text} is damaged or incomplete: {why}.",
        solutions=[
            "Nothing was changed. Use another backup: db backups lists them.",
            "Copy it again, if this is a copy.",
        ],
    )


def _not_a_dump(backup: Backup, start: bytes) -> BackupError:
    if start.startswith(b"--\n-- PostgreSQL database dump"):
        why, advice = (
            "it is a plain SQL script",
            "Restore it with psql; back up with db backup, or pg_dump --format=custom.",
        )
    elif not start:
        why, advice = "it is empty", "Use another backup: db backups lists them."
    else:
        why, advice = "it does not begin as one", "Use another backup: db backups lists them."
    return BackupError(f"{backup.text} is no dump in pg_dump's custom format: {why}.", solutions=[advice])


def _needed(start: bytes) -> int:
    """Tell which pg_restore reads this version of the format (bytes 5 and 6; 1.15 is PostgreSQL 16's, 1.16 17's)."""
    return 17 if tuple(start[5:7]) >= (1, 16) else 16


def words_of(text: str) -> str:
    """Give what a program said, without its name before each line."""
    lines = [
        re.sub(r"^(pg_restore|psql|pg_dump)(:<stdin>:\d+)?: (error: )?", "", line).strip() for line in text.splitlines()
    ]
    return "\n".join(line for line in lines if line)

"""Migration files: what one looks like, and the chain they form.

    -- Create users: people who sign in.            what changes and why, in one or more lines
    -- parent: none                                 the revision before this one
    -- transaction: none                            only where a statement cannot run in a transaction

    CREATE TABLE users (...);                       the way up

    -- down

    DROP TABLE users;                               the way back

The name is YYYYMMDDHHMMSS_what_it_does.sql and its timestamp the revision. Beside each lies a .py, the same for all,
which is what Alembic loads. The chain is linear and equals name order: what two branches add side by
side is caught before it meets a database, and an older file merged late cannot be skipped in silence.
"""

import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from migrations import kinds, statements
from migrations.statements import Malformed, Statement
from shared.errors import MigrationError

VERSIONS = Path(__file__).with_name("versions")
TIMESTAMP = "%Y%m%d%H%M%S"
LOADER = """\
from migrations.revision import load

__doc__, revision, down_revision, upgrade, downgrade = load(__file__)
"""

_NAME = re.compile(r"(\d{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])(?:[0-5]\d){2})_[a-z0-9_]+\.sql")
# The lines of the first comment down to the one that names the parent.
_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:--[^\n]*\n)*?--[ \t]*parent:[ \t]*(none|\d{14})[ \t\r]*\n")
_MARKER = re.compile(r"--[ \t]*down[ \t\r]*")
_HEADER = re.compile(r"--[ \t]*(parent|transaction):[ \t]*(.*?)[ \t\r]*")
_TRANSACTION_CONTROL = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"}


@dataclass(frozen=True)
class Part:
    """The way up or the way back: its text as it stands in the file, and where it begins."""

    text: str
    first_line: int

    @cached_property
    def statements(self) -> list[Statement]:
        """List its statements. Raises Malformed."""
        return statements.split(self.text, first_line=self.first_line)


@dataclass(frozen=True)
class File:
    """A migration file as far as its name and its first comment tell."""

    path: Path
    revision: str
    parent: str | None
    checksum: str  # sha-256 of the text, whatever its line ends

    @property
    def name(self) -> str:
        """Give the file's name, which is how people speak of a migration."""
        return self.path.name


@dataclass(frozen=True)
class Migration(File):
    """One migration file, parsed."""

    description: str
    transactional: bool
    up: Part
    down: Part

    def check_reversible(self) -> None:
        """Raise MigrationError where there is something to take back and no way back is written."""
        if self.up.statements and not self.down.statements:
            raise MigrationError(
                f"{self.name} cannot be taken back: no statement stands below its line `-- down`.",
                solutions=["Write the statements there, or restore a backup."],
            )


def parse(path: Path) -> Migration:
    """Read a migration file. Raises MigrationError naming the file and line of what is wrong."""
    revision, data = _revision(path), path.read_bytes()
    text = _decode(path, data)
    header, body_start = _header(text)
    fields = _fields(path, header)
    marker = _marker(path, text)
    up = Part(text[body_start : marker.start], 1 + text.count("\n", 0, body_start))
    down = Part(text[marker.end :], 1 + text.count("\n", 0, marker.end))
    migration = Migration(
        path=path,
        revision=revision,
        parent=None if fields["parent"] == "none" else fields["parent"],
        checksum=_checksum(data),
        description=" ".join(_prose(header)),
        transactional="transaction" not in fields,
        up=up,
        down=down,
    )
    for part in (up, down):
        _check_statements(migration, part)
    return migration


def glance(path: Path) -> File:
    """Read a file's name, parent and checksum only. Raises MigrationError as `parse` does where they cannot be read."""
    data = path.read_bytes()
    if not (head := _HEAD.match(data)):
        return parse(path)
    parent = head[1].decode()
    return File(path, _revision(path), None if parent == "none" else parent, _checksum(data))


def scan(directory: Path = VERSIONS) -> tuple[File, ...]:
    """List the files of a folder, oldest first, and check that they form one chain in name order.

    Raises MigrationError naming the files that do not fit and how to mend them. Their SQL is not looked at.
    """
    return _in_order(directory, glance)


def chain(directory: Path = VERSIONS) -> tuple[Migration, ...]:
    """Parse every migration of a folder, oldest first; raises MigrationError as `scan` and `parse` do."""
    migrations = _in_order(directory, parse)
    for migration in migrations:
        check_loader(migration)
    return migrations


_F = TypeVar("_F", bound=File)


def _in_order(directory: Path, read: Callable[[Path], _F]) -> tuple[_F, ...]:
    """Read the files of a folder and check their order. Raises MigrationError."""
    names = sorted(entry.name for entry in os.scandir(directory))
    migrations = tuple(read(directory / name) for name in names if name.endswith(".sql"))
    _check_pairs({name for name in names if name.endswith(".py")}, migrations)
    by_revision: dict[str, _F] = {}
    by_parent: dict[str | None, _F] = {}
    for migration in migrations:
        if twin := by_revision.get(migration.revision):
            raise MigrationError(
                f"{twin.name} and {migration.name} have the same timestamp.",
                solutions=[f"Give the one that is not applied anywhere another: db migrate rebase {migration.name}"],
            )
        by_revision[migration.revision] = migration
    for migration in migrations:
        if migration.parent is not None and migration.parent not in by_revision:
            raise MigrationError(
                f"{migration.name} names the parent {migration.parent}, and no file has that timestamp.",
                solutions=["Restore the missing file, or correct the `-- parent:` line."],
            )
        if migration.parent is not None and migration.parent >= migration.revision:
            raise MigrationError(
                f"{migration.name} comes before its parent {by_revision[migration.parent].name} in name order.",
                solutions=["Rename it (and its .py) to a timestamp later than its parent's."],
            )
        if sibling := by_parent.get(migration.parent):
            raise MigrationError(
                f"Two heads: {sibling.name} and {migration.name} both follow {migration.parent or 'nothing'}.",
                solutions=[
                    "Put the one that is not applied anywhere yet behind the other: "
                    f"db migrate rebase {migration.name} (or {sibling.name})",
                ],
            )
        by_parent[migration.parent] = migration
    return migrations


def check_loader(file: File) -> None:
    """Raise MigrationError where the .py beside a file is not what it must be: Alembic sees only that."""
    path = file.path.with_suffix(".py")
    if not path.exists() or path.read_text("utf-8") != LOADER:
        raise _no_loader(path.name)


def _check_pairs(loaders: set[str], files: Sequence[File]) -> None:
    expected = {f"{file.path.stem}.py" for file in files}
    for name in sorted(expected - loaders):
        raise _no_loader(name)
    for name in sorted(loaders - expected):
        sql = f"{name.removesuffix('.py')}.sql"
        raise MigrationError(f"{name} has no .sql file beside it.", solutions=[f"Restore {sql}, or delete {name}."])


def _no_loader(name: str) -> MigrationError:
    return MigrationError(
        f"{name}, which Alembic needs beside the .sql file, is missing or was changed.",
        solutions=["Copy it from any other migration: they are all the same."],
    )


def _revision(path: Path) -> str:
    if match := _NAME.fullmatch(path.name):
        return match[1]
    raise MigrationError(
        f"{path.name} is not named as a migration: a UTC timestamp, an underscore, lower-case words.",
        solutions=["Rename it like 20261121120000_create_users.sql; `db migrate create NAME` names files so."],
    )


def _checksum(data: bytes) -> str:
    return sha256(data.removeprefix(BOM_UTF8).replace(b"\r\n", b"\n")).hexdigest()


def _decode(path: Path, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise MigrationError(f"{path.name}, line {line}: not UTF-8 text.") from None
    if "\0" in text:
        raise MigrationError(f"{path.name}, line {1 + text.count(chr(10), 0, text.index(chr(0)))}: a NUL character.")
    return text


def _header(text: str) -> tuple[list[str], int]:
    """Give the lines of the comment that the file starts with, and the offset behind it."""
    end = 0
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        belongs_to_body = _MARKER.fullmatch(stripped) or statements.REPEAT.fullmatch(stripped)
        if belongs_to_body or not (stripped.startswith("--") or (not stripped and not lines)):
            break
        end += len(line)
        if stripped:
            lines.append(stripped)
    return lines, end


def _prose(header: list[str]) -> list[str]:
    lines = (line.lstrip("-").strip() for line in header if not _HEADER.fullmatch(line))
    return [line for line in lines if line]


def _fields(path: Path, header: list[str]) -> dict[str, str]:
    if not _prose(header):
        raise MigrationError(
            f"{path.name}, line 1: the file does not start with a comment.",
            solutions=["Begin it with a comment that says what changes and why."],
        )
    fields = {match[1]: match[2] for line in header if (match := _HEADER.fullmatch(line))}
    if not re.fullmatch(r"none|\d{14}", fields.get("parent", "")):
        raise MigrationError(
            f"{path.name}: its first comment has no line `-- parent:` with a timestamp.",
            solutions=["Write `-- parent: ` and the timestamp of the migration before it; `none` for the first."],
        )
    if fields.get("transaction", "none") != "none":
        raise MigrationError(
            f"{path.name}: `-- transaction: {fields['transaction']}` is not known.",
            solutions=["Write `-- transaction: none`, or remove the line to run the file in a transaction."],
        )
    return fields


def _marker(path: Path, text: str) -> statements.Token:
    """Find the line that parts up from down; one inside a string or a function body does not count."""
    markers = []
    try:
        for token in statements.tokens(text):
            starts_line = not text[text.rfind("\n", 0, token.start) + 1 : token.start].strip()
            if token.kind == "comment" and starts_line and _MARKER.fullmatch(token.text):
                markers.append(token)
    except Malformed as error:
        raise _malformed(path, 1, text, error) from None
    if len(markers) == 1:
        return markers[0]
    if not markers:
        raise MigrationError(
            f"{path.name} has no line `-- down`.",
            solutions=["Write `-- down` on a line of its own, and behind it the statements that take the change back."],
        )
    line = 1 + text.count("\n", 0, markers[1].start)
    raise MigrationError(f"{path.name}, line {line}: a second line `-- down`.", solutions=["Leave one."])


def _check_statements(migration: Migration, part: Part) -> None:
    try:
        found = part.statements
    except Malformed as error:
        raise _malformed(migration.path, part.first_line, part.text, error) from None
    for statement in found:
        if statement.words[:1] and statement.words[0] in _TRANSACTION_CONTROL:
            raise MigrationError(
                f"{migration.name}, line {statement.line}: {statement.words[0]} cannot stand in a migration.",
                solutions=[
                    "Remove it: each file is one transaction already.",
                    "Where a statement cannot run in a transaction, put `-- transaction: none` into the first comment.",
                ],
            )
        if problem := kinds.problem(statement, transactional=migration.transactional):
            message, solution = problem
            raise MigrationError(f"{migration.name}, line {statement.line}: {message}", solutions=[solution])
        if statement.words[:1] == ("COPY",) and {"STDIN", "STDOUT"} & set(statement.words):
            raise MigrationError(
                f"{migration.name}, line {statement.line}: COPY with the client's data cannot stand in a migration.",
                solutions=["Write the rows as INSERT."],
            )


def _malformed(path: Path, first_line: int, text: str, error: Malformed) -> MigrationError:
    return MigrationError(f"{path.name}, line {first_line + text.count(chr(10), 0, error.offset)}: {error.message}.")

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

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from migrations import statements
from migrations.statements import Malformed, Statement
from shared.errors import MigrationError

VERSIONS = Path(__file__).with_name("versions")
TIMESTAMP = "%Y%m%d%H%M%S"
LOADER = """\
from migrations.revision import load

__doc__, revision, down_revision, upgrade, downgrade = load(__file__)
"""

_NAME = re.compile(r"(\d{14})_[a-z0-9_]+\.sql")
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
class Migration:
    """One migration file, parsed."""

    path: Path
    revision: str
    parent: str | None
    description: str
    transactional: bool
    up: Part
    down: Part

    @property
    def name(self) -> str:
        """Give the file's name, which is how people speak of a migration."""
        return self.path.name

    def check_reversible(self) -> None:
        """Raise MigrationError where there is something to take back and no way back is written."""
        if self.up.statements and not self.down.statements:
            raise MigrationError(
                f"{self.name} cannot be taken back: no statement stands below its line `-- down`.",
                solutions=["Write the statements there, or restore a backup."],
            )


def parse(path: Path) -> Migration:
    """Read a migration file. Raises MigrationError naming the file and line of what is wrong."""
    if not (match := _NAME.fullmatch(path.name)) or not _is_timestamp(match[1]):
        raise MigrationError(
            f"{path.name} is not named as a migration: a UTC timestamp, an underscore, lower-case words.",
            solutions=["Rename it like 20261121120000_create_users.sql; `db migrate create NAME` names files so."],
        )
    text = _read(path)
    header, body_start = _header(text)
    fields = _fields(path, header)
    marker = _marker(path, text)
    up = Part(text[body_start : marker.start], 1 + text.count("\n", 0, body_start))
    down = Part(text[marker.end :], 1 + text.count("\n", 0, marker.end))
    migration = Migration(
        path=path,
        revision=match[1],
        parent=None if fields["parent"] == "none" else fields["parent"],
        description=" ".join(_prose(header)),
        transactional="transaction" not in fields,
        up=up,
        down=down,
    )
    for part in (up, down):
        _check_statements(migration, part)
    return migration


def chain(directory: Path = VERSIONS) -> tuple[Migration, ...]:
    """Read every migration of a folder, oldest first, and check that they form one chain in name order.

    Raises MigrationError naming the files that do not fit and how to mend them.
    """
    migrations = tuple(parse(path) for path in sorted(directory.glob("*.sql")))
    _check_loaders(directory, migrations)
    by_revision: dict[str, Migration] = {}
    by_parent: dict[str | None, Migration] = {}
    for migration in migrations:
        if twin := by_revision.get(migration.revision):
            raise MigrationError(
                f"{twin.name} and {migration.name} have the same timestamp.",
                solutions=[f"Rename {migration.name} (and its .py) to a later timestamp."],
            )
        by_revision[migration.revision] = migration
    newest = migrations[-1].revision if migrations else ""
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
                    f"Put one behind the other: in the file that is not applied anywhere yet, change the line to "
                    f"`-- parent: {newest if newest != migration.revision else sibling.revision}`, and rename it "
                    f"(and its .py) to a timestamp later than that."
                ],
            )
        by_parent[migration.parent] = migration
    return migrations


def _check_loaders(directory: Path, migrations: tuple[Migration, ...]) -> None:
    expected = {migration.path.with_suffix(".py") for migration in migrations}
    for path in expected:
        if not path.exists() or path.read_text("utf-8") != LOADER:
            raise MigrationError(
                f"{path.name}, which Alembic needs beside the .sql file, is missing or was changed.",
                solutions=["Copy it from any other migration: they are all the same."],
            )
    for path in sorted(set(directory.glob("*.py")) - expected):
        raise MigrationError(
            f"{path.name} has no .sql file beside it.",
            solutions=[f"Restore {path.with_suffix('.sql').name}, or delete {path.name}."],
        )


def _is_timestamp(text: str) -> bool:
    try:
        datetime.strptime(text, TIMESTAMP)  # noqa: DTZ007 - only its form matters
    except ValueError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + path.read_bytes().count(b"\n", 0, error.start)
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
        if _MARKER.fullmatch(stripped) or not (stripped.startswith("--") or (not stripped and not lines)):
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
        if statement.words[:1] == ("COPY",) and {"STDIN", "STDOUT"} & set(statement.words):
            raise MigrationError(
                f"{migration.name}, line {statement.line}: COPY with the client's data cannot stand in a migration.",
                solutions=["Write the rows as INSERT."],
            )


def _malformed(path: Path, first_line: int, text: str, error: Malformed) -> MigrationError:
    return MigrationError(f"{path.name}, line {first_line + text.count(chr(10), 0, error.offset)}: {error.message}.")

"""Put a migration that is not applied yet behind all others: what mends two heads, and a file that was merged late."""

import re
from collections.abc import Sequence
from pathlib import Path

from migrations import create, files, head, history, ledger
from migrations.connection import session
from migrations.files import VERSIONS, File
from migrations.progress import Report
from shared.errors import ConfigurationError, DatabaseUnavailable, MigrationError, Refused

_PARENT = re.compile(rb"(--[ \t]*parent:[ \t]*)(none|\d{14})")


def rebase(name: str, *, report: Report, directory: Path = VERSIONS) -> list[Path]:
    """Give a file a new timestamp and a new parent, so that it is the newest; gives the new paths of its .sql files.

    Where another file follows the same parent, those that follow this one go with it. Else they stay, and follow its
    parent. Raises Refused where the database in DATABASE_URL, if it can be reached, has one of them applied.
    """
    found = [files.glance(path) for path in sorted(directory.glob("*.sql"))]
    file = _find(name, found)
    twins = [other for other in found if other.revision == file.revision and other != file]
    children = [] if twins else [other for other in found if other.parent == file.revision]
    moving = [file]
    if any(other.parent == file.parent and other != file for other in found):
        while children:
            moving += children
            children = [other for other in found if other.parent in {child.revision for child in children}]
    _check_not_applied(moving, report)
    for child in children:
        _write_parent(child, file.parent)
    parent = max((other.revision for other in found if other not in moving), default=None)
    moved = []
    for one in moving:
        _write_parent(one, parent)
        parent = create.timestamp(parent)
        moved.append(one.path.with_name(f"{parent}{one.name[len(one.revision) :]}"))
        one.path.with_suffix(".py").rename(moved[-1].with_suffix(".py"))
        one.path.rename(moved[-1])
        report(f"{one.name} is now {moved[-1].name}")
    if directory == VERSIONS:
        head.write()
    return moved


def _find(name: str, found: Sequence[File]) -> File:
    wanted = Path(name).name.removesuffix(".sql").removesuffix(".py")
    matching = [file for file in found if wanted in (file.path.stem, file.revision)]
    if len(matching) == 1:
        return matching[0]
    raise MigrationError(
        f"{name} is not the name of one migration.", solutions=["Give the name of a file in migrations/versions."]
    )


def _check_not_applied(moving: Sequence[File], report: Report) -> None:
    try:
        with session() as connection:
            applied = {*ledger.read(connection), history.current_revision(connection)}
    except (ConfigurationError, DatabaseUnavailable, Refused) as error:
        report(f"No database was asked whether it is applied: {error.message}")
        return
    for file in moving:
        if file.revision in applied:
            raise Refused(
                f"{file.name} is applied to the database in DATABASE_URL, where it must keep its name.",
                solutions=["Put the other one behind it, if that is not applied anywhere: db migrate rebase OTHER"],
            )


def _write_parent(file: File, parent: str | None) -> None:
    text = file.path.read_bytes()
    file.path.write_bytes(_PARENT.sub(rb"\g<1>" + (parent or "none").encode(), text, count=1))

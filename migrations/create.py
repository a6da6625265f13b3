"""Write new migration files."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from migrations import files, head
from migrations.files import LOADER, TIMESTAMP, VERSIONS
from shared.errors import MigrationError

MAXIMUM_LENGTH = 60  # of the name without its timestamp

_TEMPLATE = """\
-- {description}
-- parent: {parent}

{up}

-- down

{down}
"""
_EMPTY = "-- Each statement ends with a semicolon; the whole file is one transaction."
_EMPTY_DOWN = "-- The statements that take it back, in reverse order."


def create(name: str, *, directory: Path = VERSIONS) -> Path:
    """Write an empty migration that follows the newest one; gives the path of its .sql file.

    Raises MigrationError for a name that does not make a file name, and where the present files are not in order.
    """
    slug = re.sub(r"[\s-]+", "_", name.strip().lower())
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug) or len(slug) > MAXIMUM_LENGTH:
        raise MigrationError(
            f"{name!r} does not make a file name.",
            solutions=[
                f"Say what the migration does in letters a to z, digits, - and _, beginning with a letter, in at most "
                f"{MAXIMUM_LENGTH} characters: db migrate create add_users_phone"
            ],
        )
    migrations = files.chain(directory)
    parent = migrations[-1].revision if migrations else None
    path = directory / f"{timestamp(parent)}_{slug}.sql"
    write(path, parent=parent, description=f"{name.strip()}: say here what changes and why.")
    if directory == VERSIONS:
        head.write()
    return path


def write(path: Path, *, parent: str | None, description: str, up: str = "", down: str = "") -> None:
    """Write a migration and the .py beside it."""
    text = _TEMPLATE.format(
        description="\n-- ".join(description.splitlines()),
        parent=parent or "none",
        up=up or _EMPTY,
        down=down or _EMPTY_DOWN,
    )
    path.write_text(text, "utf-8")
    path.with_suffix(".py").write_text(LOADER, "utf-8")


def timestamp(newest: str | None) -> str:
    """Give the time, or a second after the newest migration where that is not in the past."""
    now = datetime.now(UTC).strftime(TIMESTAMP)
    if newest is None or now > newest:
        return now
    later = datetime.strptime(newest, TIMESTAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
    return later.strftime(TIMESTAMP)

"""What the command line, the build hook and the development server call: deploy, status, dry run, downgrade.

Alembic and SQLAlchemy are imported only when there is a revision to run; a deploy with nothing to do needs neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psycopg

from migrations import failure, files, guards, lock, seed
from migrations.connection import Connection, session
from migrations.files import VERSIONS, Migration
from migrations.progress import Progress
from shared.errors import MigrationError
from shared.settings import get_settings

if TYPE_CHECKING:
    from alembic.config import Config

Report = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """Where a database stands against the files."""

    current: str | None  # the revision that the database says it is at
    applied: tuple[Migration, ...]
    pending: tuple[Migration, ...]
    state: Literal["equal", "behind", "ahead"]


@dataclass(frozen=True)
class Result:
    """Where a run left the database, and what it did; nothing in a dry run."""

    status: Status
    applied: tuple[Migration, ...] = ()
    undone: tuple[Migration, ...] = ()


def deploy(*, report: Report, directory: Path = VERSIONS, force: bool = False, lock_wait: float = lock.WAIT) -> Result:
    """Apply what is pending, then add essential data that is missing. A second run changes nothing.

    With MIGRATION_DRYRUN it is a dry run. A database ahead of the files, as after rolling back to an older deployment,
    is left alone with a warning. Raises what the guards raise, and MigrationError.
    """
    settings = get_settings()
    if settings.migration_dryrun:
        return dry_run(report=report, directory=directory)
    migrations = files.chain(directory)
    progress = Progress(report, "Applied")
    with guards.guarded(lock_wait=lock_wait, report=report) as connection:
        found = _status(connection, migrations)
        if found.state == "ahead":
            report(_ahead(found, migrations))
            return Result(status=found)
        if found.pending:
            guards.check_allowed(settings, force=force)
        seed.check(connection, settings)
        if found.pending:
            _run_alembic("upgrade", migrations[-1].revision, directory, progress, report)
            found = _status(connection, migrations)
            if found.pending:
                raise MigrationError(f"Alembic ended without an error, and the database is at {found.current} only.")
        for line in seed.run(connection, settings):
            report(line)
    report(f"The database is at {found.current}" if progress.done else "Nothing to migrate")
    return Result(status=found, applied=tuple(progress.done))


def dry_run(*, report: Report, directory: Path = VERSIONS) -> Result:
    """Report what deploy would run, as SQL, and change nothing. Raises what deploy would before its first change."""
    settings = get_settings()
    migrations = files.chain(directory)
    with session() as connection:
        guards.check_writable(connection)
        found = _status(connection, migrations)
        if found.state == "ahead":
            report(_ahead(found, migrations))
            return Result(status=found)
        for migration in found.pending:
            report(f"Would apply {migration.name}:\n\n{migration.up.text.strip()}\n")
        for thing in seed.missing(connection, before_migrating=True):
            report(f"Would add: {thing}")
        if not found.pending:
            report("Nothing to migrate")
        seed.check(connection, settings)
    return Result(status=found)


def status(*, directory: Path = VERSIONS) -> Status:
    """Compare the database with the files; changes nothing, and works on a standby."""
    migrations = files.chain(directory)
    with session() as connection:
        return _status(connection, migrations)


def downgrade(
    to: str | None = None,
    *,
    report: Report,
    directory: Path = VERSIONS,
    force: bool = False,
    lock_wait: float = lock.WAIT,
) -> Result:
    """Take revisions back, newest first, until the database is at `to`: a revision, a file's name, or `base`.

    Without `to` it takes back the newest one; with MIGRATION_DRYRUN it only says which. Raises what the guards raise,
    and MigrationError; before anything is changed where a file on the way cannot be taken back.
    """
    settings = get_settings()
    migrations = files.chain(directory)
    progress = Progress(report, "Took back")
    with guards.guarded(lock_wait=lock_wait, report=report) as connection:
        found = _status(connection, migrations)
        if found.state == "ahead":
            raise MigrationError(_ahead(found, migrations), solutions=["Run this in the newer checkout."])
        target, undone = _way_back(to, found)
        for migration in undone:
            migration.check_reversible()
        if settings.migration_dryrun:
            for migration in undone:
                report(f"Would take back {migration.name}:\n\n{migration.down.text.strip()}\n")
            return Result(status=found)
        if undone:
            guards.check_allowed(settings, force=force)
            _run_alembic("downgrade", target, directory, progress, report)
            found = _status(connection, migrations)
    report(f"The database is at {found.current or 'no revision'}" if progress.done else "Nothing to take back")
    return Result(status=found, undone=tuple(progress.done))


def _status(connection: Connection, migrations: tuple[Migration, ...]) -> Status:
    current = _current(connection)
    if current is None:
        return Status(None, (), migrations, "behind" if migrations else "equal")
    revisions = [migration.revision for migration in migrations]
    if current in revisions:
        count = revisions.index(current) + 1
        pending = migrations[count:]
        return Status(current, migrations[:count], pending, "behind" if pending else "equal")
    if not revisions or current > revisions[-1]:
        return Status(current, migrations, (), "ahead")
    raise MigrationError(
        f"The database is at the revision {current}, and no file here has that timestamp.",
        solutions=["Restore the file that was removed or renamed since it was applied."],
    )


def _current(connection: Connection) -> str | None:
    try:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except psycopg.errors.UndefinedTable:
        return None
    if len(rows) > 1:
        raise MigrationError(
            f"The database is at {len(rows)} revisions at once: {', '.join(sorted(str(row[0]) for row in rows))}.",
            solutions=["Leave one row in alembic_version, that of the newest migration that was applied."],
        )
    return str(rows[0][0]) if rows else None


def _ahead(found: Status, migrations: tuple[Migration, ...]) -> str:
    newest = migrations[-1].name if migrations else "none"
    return (
        f"Warning: the database is at {found.current}, ahead of this code (newest file: {newest}). "
        "Nothing was migrated."
    )


def _way_back(to: str | None, found: Status) -> tuple[str, list[Migration]]:
    """Give Alembic's name of the target, and what has to be taken back for it, newest first."""
    newest_first = list(reversed(found.applied))
    if to == "base":
        return "base", newest_first
    if to is None:
        return (newest_first[0].parent or "base", newest_first[:1]) if newest_first else ("base", [])
    wanted = to.removesuffix(".sql")
    for index, migration in enumerate(newest_first):
        if wanted in (migration.revision, migration.path.stem):
            return migration.revision, newest_first[:index]
    raise MigrationError(
        f"{to} is not an applied migration.",
        solutions=["Give the timestamp or the name of one that is applied (db migrate status), or `base`."],
    )


def _run_alembic(
    command: Literal["upgrade", "downgrade"], target: str, directory: Path, progress: Progress, report: Report
) -> None:
    from alembic import command as commands
    from alembic.util import CommandError

    try:
        getattr(commands, command)(_config(directory, progress), target)
    except CommandError as error:
        raise MigrationError(str(error)) from error
    except KeyboardInterrupt:
        if progress.current is not None:
            report(f"Interrupted in {progress.current.name}. {failure.state_after(progress.current)}")
        raise
    progress.finish()


def _config(directory: Path, progress: Progress) -> "Config":
    from alembic.config import Config

    config = Config(attributes={"progress": progress})
    # Values of this file format are interpolated: % is written %%.
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("version_locations", str(directory).replace("%", "%%"))
    return config

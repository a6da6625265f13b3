"""What the command line, the build hook and the development server call: deploy, status, dry run, downgrade.

Alembic and SQLAlchemy are imported only when there is a revision to run; a deploy with nothing to do needs neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from migrations import connection as connections
from migrations import files, guards, history, ledger, lock, seed, state, tag
from migrations.connection import Connection, session
from migrations.files import VERSIONS, File, Migration
from migrations.history import Status
from migrations.progress import Progress, Report
from shared.errors import DatabaseAhead, EnvironmentMismatch, MigrationError
from shared.imports import without_collection
from shared.settings import get_settings


@dataclass(frozen=True)
class Result:
    """Where a run left the database, and what it did; nothing in a dry run."""

    status: Status
    applied: tuple[Migration, ...] = ()
    undone: tuple[Migration, ...] = ()


def deploy(
    *,
    report: Report,
    directory: Path = VERSIONS,
    force: bool = False,
    strict: bool = False,
    lock_wait: float = lock.WAIT,
) -> Result:
    """Apply what is pending, then add essential data and indexes that are missing. A second run changes nothing.

    With MIGRATION_DRYRUN it is a dry run. A preview build leaves another environment's database alone. So does, with a
    warning, code that the database is ahead of, as after rolling back to an older deployment; `strict` makes that
    DatabaseAhead. Raises what the guards raise, EnvironmentMismatch, HistoryMismatch and MigrationError.
    """
    if get_settings().migration_dryrun:
        return dry_run(report=report, directory=directory, strict=strict)
    found = files.scan(directory)
    with session() as connection:
        if finished := _finished(connection, found):
            report("Nothing to migrate")
            return Result(finished)
        status = history.read(connection, found)
        if not _may_go_on(status, found, report, strict=strict):
            return Result(status)
        with lock.hold(connection, wait=lock_wait, report=report):
            return _deploy(connection, directory, found, report=report, force=force, strict=strict)


def _finished(connection: Connection, found: Sequence[File]) -> Status | None:
    """Pass the guards, and tell whether there is nothing to do: in one round trip, once the tables are there."""
    seen = state.look(connection)
    guards.check_writable(connection, guards.facts(connection) if seen is None else seen.facts)
    if seen is None:
        return None
    try:
        settings = tag.in_force(get_settings(), seen.environment)
    except EnvironmentMismatch:
        return None  # told by whoever reads the history, with what else there is to tell
    return history.finished(found, settings.environment) if seen.is_finished(found, settings) else None


def _deploy(
    connection: Connection, directory: Path, found: Sequence[File], *, report: Report, force: bool, strict: bool
) -> Result:
    status = history.read(connection, found)  # again: whoever held the lock has changed it
    if not _may_go_on(status, found, report, strict=strict):
        return Result(status)
    settings = tag.in_force(get_settings(), status.environment)
    pending = _pending(connection, status)
    if pending:
        guards.check_allowed(settings, force=force)
    seed.check(connection, settings)
    connections.lift_transaction_timeout(connection)
    ledger.prepare(connection)
    if status.environment is None:
        tag.write(connection, settings.environment)
    from migrations import concurrent_index, indexes  # what a deploy with nothing to do does without

    progress = Progress(report, "Applied")
    if pending:
        with without_collection():
            from migrations import engine  # Alembic and SQLAlchemy

        engine.run("upgrade", pending[-1].revision, directory, guard=connection, progress=progress, report=report)
    if settings.is_production_like:
        indexes.build(connection, report=report)
    remarks = indexes.remarks if settings.is_production_like else concurrent_index.warnings
    for line in [*seed.run(connection, settings), *remarks(connection)]:
        report(line)
    if pending:
        status = _read_back(found)
    state.finish(connection, found, settings)
    report(f"The database is at {status.current}" if progress.done else "Nothing to migrate")
    return Result(status, applied=tuple(progress.done))


def _read_back(found: Sequence[File]) -> Status:
    """Look from a fresh connection whether what was applied is there. Raises MigrationError."""
    with session() as connection:
        status = history.read(connection, found)
    if status.state != "equal" or status.problems:
        raise MigrationError(
            f"The migrations ended without an error, and the database is at {status.current or 'no revision'}.",
            solutions=["See what it says was applied: db migrate status"],
        )
    return status


def dry_run(*, report: Report, directory: Path = VERSIONS, strict: bool = False) -> Result:
    """Report what deploy would run, and what lint says of it, and change nothing.

    Raises what deploy would before its first change.
    """
    found = files.scan(directory)
    with session() as connection:
        guards.check_writable(connection, guards.facts(connection))
        status = history.read(connection, found)
        if not _may_go_on(status, found, report, strict=strict):
            return Result(status)
        settings = tag.in_force(get_settings(), status.environment)
        pending = _pending(connection, status)
        for migration in pending:
            report(f"Would apply {migration.name}:\n\n{migration.up.text.strip()}\n")
        if pending:
            _lint(directory, pending, report)
        for thing in seed.missing(connection, before_migrating=True):
            report(f"Would add: {thing}")
        from migrations import indexes

        for name in indexes.missing(connection) if settings.is_production_like else ():
            report(f"Would build: index {name}")
        if not status.pending:
            report("Nothing to migrate")
        seed.check(connection, settings)
    return Result(status)


def _lint(directory: Path, pending: Sequence[Migration], report: Report) -> None:
    """Report what is wrong with the pending files; those before them tell the types and constraints they change."""
    from migrations import lint

    paths = {migration.path for migration in pending}
    for finding in lint.check(files.chain(directory)):
        if finding.path in paths:
            report(str(finding))


def status(*, directory: Path = VERSIONS) -> Status:
    """Compare the database with the files; changes nothing, and works on a standby."""
    found = files.scan(directory)
    with session() as connection:
        return history.read(connection, found)


def downgrade(
    to: str | None = None,
    *,
    report: Report,
    directory: Path = VERSIONS,
    force: bool = False,
    lock_wait: float = lock.WAIT,
) -> Result:
    """Take revisions back, newest first, until the database is at `to`: a revision, a file's name, or `base`.

    Without `to` it takes back the newest one; with MIGRATION_DRYRUN it only says which. Raises what `deploy` does, and
    MigrationError before anything is changed where a file on the way cannot be taken back.
    """
    found = files.scan(directory)
    progress = Progress(report, "Took back")
    with guards.guarded(lock_wait=lock_wait, report=report) as connection:
        status = history.read(connection, found)
        settings = tag.in_force(get_settings(), status.environment)
        if status.state == "ahead":
            raise MigrationError(_ahead(status, found), solutions=["Run this in the newer checkout."])
        history.check(status)
        target, wanted = _way_back(to, status)
        undone = _parse(wanted)
        for migration in undone:
            migration.check_reversible()
        if settings.migration_dryrun:
            for migration in undone:
                report(f"Would take back {migration.name}:\n\n{migration.down.text.strip()}\n")
            return Result(status)
        if undone:
            guards.check_allowed(settings, force=force)
            from migrations import engine

            engine.run("downgrade", target, directory, guard=connection, progress=progress, report=report)
            status = history.read(connection, found)
    report(f"The database is at {status.current or 'no revision'}" if progress.done else "Nothing to take back")
    return Result(status, undone=tuple(progress.done))


def _may_go_on(status: Status, found: Sequence[File], report: Report, *, strict: bool) -> bool:
    """Tell whether this code may migrate this database; where it need not, as in a preview, say why.

    Raises EnvironmentMismatch, HistoryMismatch, and DatabaseAhead where that is `strict`.
    """
    settings = get_settings()
    try:
        tag.in_force(settings, status.environment)
    except EnvironmentMismatch as error:
        if settings.environment != "preview":
            raise
        report("\n".join([error.message, *(f"  - {solution}" for solution in error.solutions)]))
        return False
    history.check(status)
    if status.state != "ahead":
        return True
    if strict:
        raise DatabaseAhead(_ahead(status, found), solutions=["Deploy the newer code, or leave --strict away."])
    report(f"Warning: {_ahead(status, found)} Nothing was migrated.")
    return False


def _ahead(status: Status, found: Sequence[File]) -> str:
    newest = found[-1].name if found else "none"
    return f"the database is at {status.current}, ahead of this code (newest file: {newest})."


def _pending(connection: Connection, status: Status) -> tuple[Migration, ...]:
    """Parse what is pending. Raises MigrationError, and HistoryMismatch where an interrupted file was edited since."""
    pending = _parse(status.pending)
    for migration in pending:
        if migration.revision in status.ledger:
            ledger.statements_done(connection, migration)
    return pending


def _parse(wanted: Sequence[File]) -> tuple[Migration, ...]:
    for file in wanted:
        files.check_loader(file)
    return tuple(files.parse(file.path) for file in wanted)


def _way_back(to: str | None, status: Status) -> tuple[str, list[File]]:
    """Give Alembic's name of the target, and what has to be taken back for it, newest first."""
    newest_first = list(reversed(status.applied))
    if to == "base":
        return "base", newest_first
    if to is None:
        return (newest_first[0].parent or "base", newest_first[:1]) if newest_first else ("base", [])
    wanted = to.removesuffix(".sql")
    for index, file in enumerate(newest_first):
        if wanted in (file.revision, file.path.stem):
            return file.revision, newest_first[:index]
    raise MigrationError(
        f"{to} is not an applied migration.",
        solutions=["Give the timestamp or the name of one that is applied (db migrate status), or `base`."],
    )

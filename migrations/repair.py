"""Accept the files as they are: bring the ledger in line with them, knowingly. No migration runs."""

from collections.abc import Sequence
from pathlib import Path

from migrations import files, guards, history, ledger, tag
from migrations.connection import Connection, session
from migrations.files import VERSIONS, File
from migrations.history import Problem
from migrations.progress import Report
from shared.errors import HistoryMismatch, Refused
from shared.settings import get_settings

_EFFECT = {
    "edited": "takes the place of what was applied; what was changed in it is not run",
    "missing": "is forgotten; what it did stays",
    "late": "counts as applied from now on, and is not run",
    "unrecorded": "is recorded as applied",
    "undone": "is forgotten, as alembic_version says",
    "interrupted": "begins anew at the next run, with its first statement",
}


def look(*, directory: Path = VERSIONS) -> list[Problem]:
    """List what `repair` would accept; changes nothing. Raises what `history.read` does."""
    found = files.scan(directory)
    with session() as connection:
        return _problems(connection, found)


def explain(problems: Sequence[Problem]) -> list[str]:
    """Say for each problem what accepting it does."""
    return [f"{problem.name} {_EFFECT[problem.kind]} ({problem.kind})" for problem in problems]


def repair(expected: Sequence[Problem], *, report: Report, directory: Path = VERSIONS) -> None:
    """Accept these problems. Raises Refused where there are others by now, and what the guards raise."""
    found = files.scan(directory)
    by_revision = {file.revision: file for file in found}
    with guards.guarded(report=report) as connection:
        tag.in_force(get_settings(), tag.read(connection))
        if _problems(connection, found) != list(expected):
            raise Refused("The database has changed since you were asked.", solutions=["Look again: db migrate repair"])
        ledger.prepare(connection)
        with connection.transaction():
            for problem in expected:
                if problem.kind in ("missing", "undone", "interrupted"):
                    ledger.forget(connection, problem.revision)
                else:
                    ledger.record(connection, by_revision[problem.revision])
            if any(problem.kind == "missing" for problem in expected):
                _set_version(connection)
    for problem in expected:
        report(f"Accepted {problem.name}")


def _problems(connection: Connection, found: Sequence[File]) -> list[Problem]:
    status = history.read(connection, found)
    interrupted = []
    for file in status.pending:
        if file.revision in status.ledger:
            try:
                ledger.statements_done(connection, files.parse(file.path))
            except HistoryMismatch:
                interrupted.append(Problem("interrupted", file.revision, file.name))
    return [*status.problems, *interrupted]


def _set_version(connection: Connection) -> None:
    """Have alembic_version name the newest revision that stays, should the one that it names be forgotten."""
    (row,) = connection.execute("SELECT max(revision) FROM migration_ledger WHERE applied_at IS NOT NULL").fetchall()
    connection.execute("DELETE FROM alembic_version")
    if row[0] is not None:
        connection.execute("INSERT INTO alembic_version VALUES (%s)", row)

"""The files against what the database says was applied: where it stands, and whether its history was changed since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import psycopg

from migrations import ledger, tag
from migrations.connection import Connection
from migrations.files import File
from migrations.ledger import Entry
from shared.errors import HistoryMismatch
from shared.settings import Environment

# edited, missing: the file of an applied revision. late: a file that is older than the newest applied one and was not
# applied itself. unrecorded: applied, and the ledger does not know. undone: in the ledger, and beyond alembic_version.
# interrupted: outside a transaction, and what took effect of it was edited since (ledger.statements_done tells).
Kind = Literal["edited", "missing", "late", "unrecorded", "undone", "interrupted"]

_ADVICE: Mapping[Kind, str] = {
    "edited": "Restore what was applied, and make the change in a new file: db migrate create NAME",
    "missing": "Restore the file that was removed, or merge the branch that has it",
    "late": "Put it behind the newest: db migrate rebase FILE",
    "unrecorded": "Record what is applied: db migrate repair",
    "undone": "Set alembic_version back to the newest revision that is applied: alembic stamp REVISION",
    "interrupted": "Restore the statements that took effect",
}


class Problem(NamedTuple):
    """One way in which files and database tell different histories; `name` is the file's."""

    kind: Kind
    revision: str
    name: str

    def __str__(self) -> str:
        return {
            "edited": f"{self.name} was edited since it was applied",
            "missing": f"{self.name} is applied, and there is no such file",
            "late": f"{self.name} is older than the newest applied one, and was not applied: it was merged late",
            "unrecorded": f"{self.name} is applied, and the ledger does not know it",
            "undone": f"{self.name} is recorded as applied, and alembic_version says that it is not",
            "interrupted": f"{self.name} was interrupted, and what took effect of it was edited since",
        }[self.kind]


@dataclass(frozen=True)
class Status:
    """Where a database stands against the files."""

    current: str | None  # the revision that the database says it is at
    applied: tuple[File, ...]
    pending: tuple[File, ...]
    state: Literal["equal", "behind", "ahead"]
    ledger: Mapping[str, Entry]
    problems: tuple[Problem, ...]
    environment: Environment | None  # the tag


def read(connection: Connection, files: Sequence[File]) -> Status:
    """Compare the database with the files; changes nothing. Raises HistoryMismatch where it is at two revisions."""
    current, entries = current_revision(connection), ledger.read(connection)
    applied = tuple(file for file in files if current is not None and file.revision <= current)
    newest = files[-1].revision if files else ""
    ahead = current is not None and current > newest
    return Status(
        current=current,
        applied=applied,
        pending=tuple(files[len(applied) :]),
        state="ahead" if ahead else "equal" if len(applied) == len(files) else "behind",
        ledger=entries,
        problems=tuple(_problems(current, files, applied, entries)),
        environment=tag.read(connection),
    )


def finished(files: Sequence[File], environment: Environment) -> Status:
    """Give the status of a database that `state.look` found to have everything; its ledger was not read."""
    return Status(files[-1].revision if files else None, tuple(files), (), "equal", {}, (), environment)


def check(status: Status) -> None:
    """Raise HistoryMismatch, naming each file, unless every applied revision is the file that was applied.

    Where the database is ahead, an older deployment came back: its files must be applied, in whichever text.
    """
    problems = [p for p in status.problems if status.state != "ahead" or p.kind in ("missing", "late")]
    if not problems:
        return
    shown = [f"{problem}." for problem in problems[:5]]
    if len(problems) > len(shown):
        shown.append(f"And {len(problems) - len(shown)} more: db migrate status")
    kinds = dict.fromkeys(problem.kind for problem in problems)
    late = next((problem.name for problem in problems if problem.kind == "late"), "FILE")
    advice = [_ADVICE[kind].replace("FILE", late) for kind in kinds]
    if list(kinds) != ["unrecorded"]:
        advice.append("Or accept the files as they are now, knowing what that means: db migrate repair")
    raise HistoryMismatch("\n".join(["Files and database tell different histories.", *shown]), solutions=advice)


def current_revision(connection: Connection) -> str | None:
    """Give the revision that alembic_version holds, None where there is none. Raises HistoryMismatch for several."""
    try:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except psycopg.errors.UndefinedTable:
        return None
    if len(rows) > 1:
        raise HistoryMismatch(
            f"The database is at {len(rows)} revisions at once: {', '.join(sorted(str(row[0]) for row in rows))}.",
            solutions=["Leave one row in alembic_version, that of the newest migration that was applied."],
        )
    return str(rows[0][0]) if rows else None


def _problems(
    current: str | None, files: Sequence[File], applied: Sequence[File], entries: Mapping[str, Entry]
) -> list[Problem]:
    recorded = {revision: entry for revision, entry in entries.items() if entry.applied_at is not None}
    known = {file.revision for file in files}
    newest = files[-1].revision if files else ""
    problems: list[Problem] = []
    for file in applied:
        entry = recorded.get(file.revision)
        if entry is None:
            problems.append(Problem("late" if recorded else "unrecorded", file.revision, file.name))
        elif entry.checksum != file.checksum:
            problems.append(Problem("edited", file.revision, file.name))
    for revision, entry in recorded.items():
        if current is None or revision > current:
            problems.append(Problem("undone", revision, entry.name))
        elif revision not in known and revision < newest:
            problems.append(Problem("missing", revision, entry.name))
    if current is not None and current < newest and current not in known | recorded.keys():
        problems.append(Problem("missing", current, f"The revision {current}"))
    return sorted(problems, key=lambda problem: problem.revision)

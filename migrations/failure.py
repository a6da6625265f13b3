"""What went wrong in a migration, in words that name file, line, statement and the state of the database."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg

from migrations.files import Migration
from migrations.statements import Statement
from shared.db.failures import is_lost
from shared.errors import DatabaseUnavailable, Error, MigrationError

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError

_ADVICE = {
    # active_sql_transaction: CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM and their like
    "25001": "It cannot run in a transaction: put it into a file of its own with the line `-- transaction: none`.",
    # unsafe_new_enum_value_usage
    "55P04": "Add the value in a file of its own: a new enum value can be used only once it is committed.",
    # lock_not_available, deadlock_detected
    "55P03": "Somebody else holds a lock on it. `db migrate` names them, waits until they are done and tries again.",
    "40P01": "Two transactions waited for each other: run again.",
    "53100": "The file is not to blame: the server's disk is full. Make room there, and run again.",
    "42501": "Let the owner GRANT the right to the user in DATABASE_URL, or run the migration as the owner.",
}


def describe(error: Error) -> str:
    """Write an error as a terminal shows it: the message, the cause where a look at the server tells it, what to do."""
    sqlstate = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    lines, solutions = [error.message + sqlstate], error.solutions
    if isinstance(error, DatabaseUnavailable):
        from shared.db.diagnosis import explain  # only once something has failed

        found = explain(error, probe=True)
        lines.append(f"Cause: {found.cause} ({found.code})")
        solutions = tuple(dict.fromkeys((*found.solutions, *solutions)))
    return "\n".join([*lines, *(f"  - {solution}" for solution in solutions)])


def of_statement(
    migration: Migration, statement: Statement, error: "psycopg.Error | SQLAlchemyError", *, statements_done: int = 0
) -> MigrationError:
    """Say which statement failed, what stays of its file, and what the server said.

    `statements_done` tells how many took effect before it, in a file outside a transaction.
    """
    reason, sqlstate, position = _of_driver(error)
    line = statement.line + statement.text.count("\n", 0, max(0, position - 1))
    return MigrationError(
        f"{migration.name} failed in line {line}. {state_after(migration, statements_done, statement)}\n"
        f"Statement: {statement.summary}\nServer: {reason}",
        solutions=[*_duplicates(statement, error), *_solutions(migration, statement, sqlstate)],
        sqlstate=sqlstate,
    )


def of_reason(
    migration: Migration, statement: Statement, reason: str, *, solutions: Sequence[str], statements_done: int
) -> MigrationError:
    """Say which statement of a file outside a transaction failed for a reason that we saw, not the server."""
    return MigrationError(
        f"{migration.name} failed in line {statement.line}. {state_after(migration, statements_done, statement)}\n"
        f"Statement: {statement.summary}\n{reason}",
        solutions=solutions,
    )


def at_commit(migration: Migration | None, error: "psycopg.Error | SQLAlchemyError") -> MigrationError:
    """Say that a file's statements ran and its end failed: recording the revision, or COMMIT."""
    reason, sqlstate, _ = _of_driver(error)
    if migration is None:
        return MigrationError(f"Alembic's version table could not be used: {reason}", sqlstate=sqlstate)
    if is_lost(sqlstate):
        return MigrationError(
            f"{migration.name}: the connection was lost at COMMIT; it may be applied or not.\nServer: {reason}",
            solutions=["See whether it was: db migrate status"],
            sqlstate=sqlstate,
        )
    return MigrationError(
        f"{migration.name} failed at COMMIT. {state_after(migration, len(migration.up.statements))}\nServer: {reason}",
        solutions=["Mend the file and run again."],
        sqlstate=sqlstate,
    )


AT_ITS_END = "All its statements had run; it may be applied or not. See whether it was: db migrate status"


def state_after(migration: Migration, statements_done: int = 0, statement: Statement | None = None) -> str:
    """Tell the state that a failed or interrupted file leaves the database in; `statement` is one of its."""
    if migration.transactional:
        return "It was rolled back: the database is as it was before this file; those applied before it stay."
    backwards = statement is not None and not any(statement is one for one in migration.up.statements)
    part = migration.down if backwards else migration.up
    count = len(part.statements)
    stays = (
        f"{statements_done} of its {count} statements have"
        if statements_done
        else f"none of its {count} statements has"
    )
    if backwards:
        next_run = "it still counts as applied, and the next run begins with its first statement below `-- down`."
    else:
        next_run = "it does not count as applied, and the next run goes on from there."
    return f"It runs outside a transaction: {stays} taken effect for good; {next_run}"


def _of_driver(error: "psycopg.Error | SQLAlchemyError") -> tuple[str, str | None, int]:
    """Give the server's message, the SQLSTATE, and the position in the statement, counted from 1 (0: not known)."""
    driver_error = getattr(error, "orig", error)
    if not isinstance(driver_error, psycopg.Error) or driver_error.sqlstate is None:
        return " ".join(str(driver_error).split()), None, 0
    # DETAIL stays out: it quotes rows, and rows hold what a build log must not (addresses, password hashes).
    diagnostic = driver_error.diag
    hint = f" (hint: {diagnostic.message_hint})" if diagnostic.message_hint else ""
    return f"{diagnostic.message_primary}{hint}", driver_error.sqlstate, int(diagnostic.statement_position or 0)


def _solutions(migration: Migration, statement: Statement, sqlstate: str | None) -> list[str]:
    solutions = [_ADVICE[sqlstate]] if sqlstate in _ADVICE else []
    if is_lost(sqlstate):
        solutions.append("The file is not to blame: the connection was lost. Run again once the database answers.")
    if "CONCURRENTLY" in statement.words and "INDEX" in statement.words and not migration.transactional:
        solutions.append("Mend the cause and run again: an INVALID index that a build has left is dropped first.")
    return solutions or ["Mend the file and run again."]


def _duplicates(statement: Statement, error: "psycopg.Error | SQLAlchemyError") -> list[str]:
    """Give the query that finds the rows which keep a unique index from being built."""
    error = getattr(error, "orig", error)
    if not isinstance(error, psycopg.errors.UniqueViolation) or statement.words[:1] not in (("CREATE",), ("ALTER",)):
        return []
    # The detail reads `Key (columns)=(values) is duplicated.`; only the columns may be shown.
    if not (key := re.search(r"\((.+?)\)=\(", error.diag.message_detail or "")) or not error.diag.table_name:
        return []
    columns, table = key[1], f"{error.diag.schema_name}.{error.diag.table_name}"
    return [f"See which: SELECT {columns}, count(*) FROM {table} GROUP BY {columns} HAVING count(*) > 1;"]  # noqa: S608 - is shown

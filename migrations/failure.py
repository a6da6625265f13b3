"""What went wrong in a migration, in words that name file, line, statement and the state of the database."""

from typing import TYPE_CHECKING

import psycopg

from migrations.files import Migration
from migrations.statements import Statement
from shared.errors import DatabaseUnavailable, Error, MigrationError

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError

_ADVICE = {
    # active_sql_transaction: CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM and their like
    "25001": "It cannot run in a transaction: put it into a file of its own with the line `-- transaction: none`.",
    # unsafe_new_enum_value_usage
    "55P04": "Add the value in a file of its own: a new enum value can be used only once it is committed.",
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


def of_statement(migration: Migration, statement: Statement, error: "SQLAlchemyError") -> MigrationError:
    """Say which statement failed, what stays of its file, and what the server said."""
    reason, sqlstate, position = _of_driver(error)
    line = statement.line + statement.text.count("\n", 0, max(0, position - 1))
    return MigrationError(
        f"{migration.name} failed in line {line}. {state_after(migration)}\n"
        f"Statement: {statement.summary}\nServer: {reason}",
        solutions=_solutions(migration, statement, sqlstate),
        sqlstate=sqlstate,
    )


def at_commit(migration: Migration | None, error: "SQLAlchemyError") -> MigrationError:
    """Say that a file's statements ran and its end failed: recording the revision, or COMMIT."""
    reason, sqlstate, _ = _of_driver(error)
    if migration is None:
        return MigrationError(f"Alembic's version table could not be used: {reason}", sqlstate=sqlstate)
    if sqlstate is None:
        return MigrationError(
            f"{migration.name}: the connection was lost at COMMIT; it may be applied or not.\nServer: {reason}",
            solutions=["See whether it was: db migrate status"],
        )
    return MigrationError(
        f"{migration.name} failed at COMMIT. {state_after(migration)}\nServer: {reason}",
        solutions=["Mend the file and run again."],
        sqlstate=sqlstate,
    )


def state_after(migration: Migration) -> str:
    """Tell the state that a failed or interrupted file leaves the database in."""
    if migration.transactional:
        return "It was rolled back: the database is as it was before this file; those applied before it stay."
    return (
        "It runs outside a transaction: its statements before this one have taken effect and stay, "
        "and it does not count as applied."
    )


def _of_driver(error: "SQLAlchemyError") -> tuple[str, str | None, int]:
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
    if not migration.transactional:
        if "CONCURRENTLY" in statement.words and "INDEX" in statement.words:
            solutions.append("An interrupted build leaves its index behind, INVALID: DROP INDEX CONCURRENTLY it first.")
        solutions.append("Write each statement so that it can be repeated (IF NOT EXISTS), then run again.")
    return solutions or ["Mend the file and run again."]

"""Run the statements of one file on one connection, so that whatever stops them, the next run can go on.

A file in a transaction is all or nothing, and is tried again as a whole. In a file outside a transaction each statement
is tried again by itself, and noted in the ledger when it has taken effect.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import psycopg

from migrations import concurrent_index, failure, kinds, ledger
from migrations.connection import Connection
from migrations.contention import RETRYABLE, Contention, patience
from migrations.files import Migration, Part
from migrations.kinds import ConcurrentIndex
from migrations.progress import Progress
from migrations.statements import Statement
from shared.errors import MigrationError

EVERY = 5.0  # seconds between two lines on a backfill

_ROWS = re.compile(r"(INSERT|UPDATE|DELETE|MERGE) ")
_KEPT = ["search_path", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"]
_TOLD = {"INFO", "NOTICE", "WARNING"}


def run(
    connection: Connection, migration: Migration, part: Part, *, progress: Progress, contention: Contention | None
) -> None:
    """Run the way up or the way back. The connection is in autocommit mode where the file is outside a transaction.

    Without `contention` nothing is tried again. Raises MigrationError; LockTimeout; HistoryMismatch where statements
    that took effect in an earlier run were changed since.
    """
    progress.begin(migration, connection.info.backend_pid)
    execution = _Execution(connection, migration, part, progress, contention)
    with _notices(connection, migration, progress):
        try:
            with execution.settings_kept():
                execution.together() if migration.transactional else execution.one_by_one()
            progress.is_ending = True
        except BaseException as error:
            progress.failure = error
            raise


class _Execution:
    def __init__(
        self,
        connection: Connection,
        migration: Migration,
        part: Part,
        progress: Progress,
        contention: Contention | None,
    ) -> None:
        self._connection = connection
        self._migration = migration
        self._part = part
        self._progress = progress
        self._contention = contention
        self._rows = 0  # of the backfill under way
        self._search_path: str | None = None  # before the file, where it sets any

    @contextmanager
    def settings_kept(self) -> Iterator[None]:
        """Let what the file sets end with it, such as what pg_dump writes: no search_path, no lock_timeout."""
        if not any(kinds.changes_settings(statement) for statement in self._part.statements):
            yield
            return
        query = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
        settings = {str(name): value for name, value in self._connection.execute(query, [_KEPT]).fetchall()}
        self._search_path = str(settings["search_path"])
        yield
        for name, value in settings.items():
            self._connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", [name, value])

    def together(self) -> None:
        """Run every statement in the transaction that the caller has opened."""
        for statement in self._part.statements:
            self._begin(statement)
            try:
                self._execute(statement)
            except psycopg.Error as error:
                raise failure.of_statement(self._migration, statement, error) from None

    def one_by_one(self) -> None:
        """Run the statements that have not taken effect yet, each by itself."""
        statements, upwards = self._part.statements, self._part is self._migration.up
        done = ledger.statements_done(self._connection, self._migration) if upwards else 0
        if done:
            self._progress.report(f"{self._migration.name}: going on behind the first {done} of its statements")
        for statement in statements[:done]:
            if kinds.is_setting(statement):
                self._execute(statement)
        for number, statement in enumerate(statements[done:], start=done + 1):
            self._progress.statements_done = number - 1
            self._rows = 0
            self._until_it_works(statement, number if upwards else None)
        self._progress.statements_done = len(statements)

    def _until_it_works(self, statement: Statement, number: int | None) -> None:
        while True:
            self._begin(statement)
            try:
                self._take_effect(statement, number)
            except psycopg.Error as error:
                failed = failure.of_statement(
                    self._migration, statement, error, statements_done=self._progress.statements_done
                )
                if self._contention is None or failed.sqlstate not in RETRYABLE:
                    raise failed from None
                self._contention.pause(failed)
            else:
                return

    def _take_effect(self, statement: Statement, number: int | None) -> None:
        """Run one statement and note its number, together where that can be."""
        if kinds.can_share_a_transaction(statement) and not statement.repeated:
            with self._connection.transaction():
                self._execute(statement)
                self._record(number)
            return
        if statement.repeated:
            self._backfill(statement)
        elif kinds.is_concurrent_build(statement) and (index := kinds.read(statement)) is not None:
            self._build(statement, index)
        elif kinds.waits_unnoticed(statement):
            with patience(self._connection):
                self._execute(statement)
        else:
            self._execute(statement)
        self._record(number)

    def _record(self, number: int | None) -> None:
        if number is None:
            return
        with self._connection.transaction() if self._search_path is not None else nullcontext():
            if self._search_path is not None:
                self._connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", [self._search_path])
            ledger.record_statement(self._connection, self._migration, number)

    def _backfill(self, statement: Statement) -> None:
        told = time.monotonic()
        while True:
            cursor = self._execute(statement)
            if not _ROWS.match(cursor.statusmessage or ""):
                raise self._failed(
                    statement,
                    "`-- repeat until no rows` needs a statement that itself changes rows: this one would never end.",
                    ["End it with an INSERT, UPDATE, DELETE or MERGE, not with a SELECT."],
                )
            self._rows += cursor.rowcount
            if cursor.rowcount == 0:
                break
            if time.monotonic() - told >= EVERY:
                told = time.monotonic()
                self._progress.report(f"{self._migration.name}, line {statement.line}: {self._rows} rows so far")
        self._progress.report(f"{self._migration.name}, line {statement.line}: {self._rows} rows in all")

    def _build(self, statement: Statement, index: ConcurrentIndex) -> None:
        concurrent_index.build(
            self._connection,
            index,
            statement.text,
            report=self._progress.report,
            contention=self._contention,
            failed=lambda reason, solutions: self._failed(statement, reason, solutions),
        )

    def _failed(self, statement: Statement, reason: str, solutions: Sequence[str]) -> MigrationError:
        return failure.of_reason(
            self._migration,
            statement,
            reason,
            solutions=solutions,
            statements_done=self._progress.statements_done,
        )

    def _execute(self, statement: Statement) -> psycopg.Cursor[tuple[object, ...]]:
        # Without parameters neither % nor :name means anything to the driver.
        return self._connection.execute(statement.text, prepare=False)

    def _begin(self, statement: Statement) -> None:
        self._progress.statement = statement
        if self._contention is not None:
            self._contention.blockers = []


@contextmanager
def _notices(connection: Connection, migration: Migration, progress: Progress) -> Iterator[None]:
    """Report what the server remarks, such as RAISE NOTICE."""

    def tell(notice: psycopg.errors.Diagnostic) -> None:
        if (severity := notice.severity_nonlocalized) in _TOLD:
            progress.report(f"{migration.name}: {severity}: {notice.message_primary}")

    connection.add_notice_handler(tell)
    try:
        yield
    finally:
        connection.remove_notice_handler(tell)

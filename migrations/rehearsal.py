"""Run the pending migrations against the real database in one transaction, look at what they do, and roll it back.

It holds real locks while it lasts. So it waits for a lock only shortly, the whole is bounded by the server itself, and
a production database is rehearsed on only when asked for twice.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psycopg

from migrations import failure, files, guards, history, kinds, lock, tag
from migrations.connection import Connection, connect
from migrations.contention import Contention
from migrations.files import VERSIONS, Migration
from migrations.progress import Progress, Report
from migrations.statements import Statement
from migrations.watcher import Watcher
from shared.errors import LockTimeout, MigrationError, Refused
from shared.settings import get_settings

SECONDS = 10.0  # that all of it may hold locks
LOCK_TIMEOUT = 1.0  # seconds that one statement waits for a lock, and the site behind it

# From the strongest to the weakest (manual 13.3.1).
BLOCKS = {
    "AccessExclusiveLock": "ACCESS EXCLUSIVE: nobody reads or writes it meanwhile",
    "ExclusiveLock": "EXCLUSIVE: reads go on, writes wait",
    "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE: reads go on, writes wait",
    "ShareLock": "SHARE: reads go on, writes wait",
    "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE: reads and writes go on",
    "RowExclusiveLock": "ROW EXCLUSIVE",
    "RowShareLock": "ROW SHARE",
    "AccessShareLock": "ACCESS SHARE",
}
_STRENGTHS = list(BLOCKS)
_SKIPPED = {
    "25001": "it cannot run in a transaction",  # active_sql_transaction
    "2D000": "it ends transactions itself",  # invalid_transaction_termination: a procedure with COMMIT
    "55P04": "it uses an enum value that is not committed",  # unsafe_new_enum_value_usage
}
_NOTHING = "It was a rehearsal: nothing was changed."
_CHANGED_ROWS = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "SELECT")

_RELATIONS = """
SELECT c.oid, CASE WHEN n.nspname <> 'public' THEN quote_ident(n.nspname) || '.' ELSE '' END || quote_ident(c.relname),
       c.relkind::text, c.relfilenode,
       pg_size_pretty(greatest(c.relpages, 0) * current_setting('block_size')::bigint)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'i') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY c.relkind DESC, 2
"""
_LOCKS = """
SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted
  AND mode = ANY (%(strengths)s)
ORDER BY relation::regclass::text, array_position(%(strengths)s::text[], mode)
"""
_KIND = {"r": "table", "m": "materialized view", "i": "index"}


class _Relation(NamedTuple):
    oid: int
    name: str
    kind: str
    file: int
    size: str  # as ANALYZE found it: pg_relation_size would wait for a lock


@dataclass
class Observation:
    """What one statement did; `locks` are those that no statement before it held, in the words of `BLOCKS`."""

    migration: Migration
    statement: Statement
    milliseconds: float = 0.0
    locks: list[str] = field(default_factory=list)
    rewrites: list[str] = field(default_factory=list)
    rows: int | None = None
    remark: str = ""

    def __str__(self) -> str:
        parts = [f"{self.milliseconds:.0f} ms"] if not self.remark else [self.remark]
        parts += [f"locks {', '.join(self.locks)}"] if self.locks else []
        parts += [f"rewrites {', '.join(self.rewrites)}"] if self.rewrites else []
        parts += [f"{self.rows} rows"] if self.rows is not None else []
        return f"{self.migration.name}, line {self.statement.line}: {self.statement.summary}\n    {'; '.join(parts)}"


def run(*, report: Report, directory: Path = VERSIONS, force: bool = False, lock_wait: float = lock.WAIT) -> None:
    """Rehearse what is pending, as `db migrate --rehearse` does, under the same guards and lock as a deploy.

    Raises Refused on a production database unless `force`, and what `rehearse` raises.
    """
    found = files.scan(directory)
    with guards.guarded(lock_wait=lock_wait, report=report) as guard:
        status = history.read(guard, found)
        history.check(status)
        settings = tag.in_force(get_settings(), status.environment)
        pending = [files.parse(file.path) for file in status.pending]
        if not pending:
            report("Nothing to rehearse")
            return
        if settings.environment == "production" and not force:
            raise Refused(_explain(pending), solutions=["Rehearse all the same: db migrate --rehearse --force"])
        done = {revision: entry.statements_done or 0 for revision, entry in status.ledger.items()}
        rehearse(guard, pending, report, done=done)


def rehearse(
    guard: Connection,
    pending: Sequence[Migration],
    report: Report,
    *,
    done: Mapping[str, int] | None = None,
    seconds: float = SECONDS,
    lock_timeout: float = LOCK_TIMEOUT,
) -> list[Observation]:
    """Run them in one transaction that is rolled back after at most `seconds`; report what each statement did.

    `guard` holds the migration lock, and looks who blocks; `done` tells by revision how many statements of an
    interrupted file have taken effect already. Raises LockTimeout naming who does; MigrationError where a
    statement fails.
    """
    interval = lock_timeout / 5
    progress = Progress(report, "")
    contention = Contention(guard, report, wait=0.0, lock_timeout=lock_timeout, interval=interval)
    began = time.monotonic()
    with (
        connect("db migrate --rehearse") as connection,
        Watcher(guard, progress, contention, report, interval=interval),
        _bounded(connection, seconds),
    ):
        progress.backend_pid = connection.info.backend_pid
        rehearsal = _Rehearsal(connection, contention, report, seconds, lock_timeout)
        complete = rehearsal.run(pending, done or {})
    report(f"Rolled back after {time.monotonic() - began:.1f} s: nothing was changed.")
    if not complete:
        report("The rehearsal is incomplete: what comes after was not looked at.")
    return rehearsal.observations


@contextmanager
def _bounded(connection: Connection, seconds: float) -> Iterator[None]:
    """Open a transaction that the server itself ends, also when this process hangs; roll it back in any case."""
    if connection.info.server_version >= 170000:
        # A second more than our own bound, which ends in better words.
        connection.execute(f"SET transaction_timeout = {1000 * seconds + 1000:.0f}")
    connection.autocommit = False
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            connection.rollback()
        connection.close()


class _Rehearsal:
    def __init__(
        self, connection: Connection, contention: Contention, report: Report, seconds: float, lock_timeout: float
    ) -> None:
        self._connection = connection
        self._contention = contention
        self._report = report
        self._seconds = seconds
        self._lock_timeout = lock_timeout
        self._deadline = time.monotonic() + seconds
        self.observations: list[Observation] = []
        self._before: dict[int, _Relation] = {}  # at the beginning
        self._relations: dict[int, _Relation] = {}  # after the statement before
        self._held: dict[int, int] = {}  # the strongest lock on each
        self._skipped: str | None = None

    def run(self, pending: Sequence[Migration], done: Mapping[str, int]) -> bool:
        """Run every statement; tell whether all were looked at."""
        self._lower_timeouts()
        self._relations = self._before = self._look()
        row = self._connection.execute("SELECT current_setting('search_path')").fetchone()
        search_path = row and row[0]
        for migration in pending:
            for statement in migration.up.statements[done.get(migration.revision, 0) :]:
                observation = Observation(migration, statement)
                goes_on = self._try(observation)
                self.observations.append(observation)
                self._report(str(observation))
                if not goes_on:
                    return False
            if any(kinds.changes_settings(statement) for statement in migration.up.statements):
                self._connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", [search_path])
        return self._check_deferred(pending[-1])

    def _try(self, observation: Observation) -> bool:
        """Run one statement; tell whether the next one may run."""
        migration, statement = observation.migration, observation.statement
        self._contention.blockers = []
        began = time.monotonic()
        try:
            self._lower_timeouts()
            self._connection.execute("SAVEPOINT before_statement")
            began = time.monotonic()
            cursor = self._connection.execute(statement.text, prepare=False)
            observation.milliseconds = 1000 * (time.monotonic() - began)
            if (cursor.statusmessage or "").startswith(_CHANGED_ROWS) and not cursor.description:
                observation.rows = cursor.rowcount
            self._connection.execute("RELEASE SAVEPOINT before_statement")
            self._compare(observation)
        except psycopg.Error as error:
            if error.sqlstate in _SKIPPED:
                self._connection.execute("ROLLBACK TO SAVEPOINT before_statement")
                observation.remark = f"skipped: {_SKIPPED[error.sqlstate]}"
                self._skipped = f"{migration.name}, line {statement.line}"
                return True
            if self._is_over(error):
                passed = time.monotonic() - began
                observation.remark = f"cut after {passed:.1f} s: all of it may take {self._seconds:g} s"
                return False
            raise self._failed(migration, statement, error) from None
        if statement.repeated:
            observation.remark = f"{observation.milliseconds:.0f} ms for the first batch"
        return True

    def _is_over(self, error: psycopg.Error) -> bool:
        # query_canceled by statement_timeout; transaction_timeout and idle_in_transaction_session_timeout.
        is_ended = error.sqlstate in ("57014", "25P04", "25P03") or self._connection.closed
        return is_ended and time.monotonic() >= self._deadline - 0.01

    def _failed(self, migration: Migration, statement: Statement, error: psycopg.Error) -> MigrationError | LockTimeout:
        described = failure.of_statement(migration, statement, error)
        said = described.message.partition("\n")[2]
        if error.sqlstate == "55P03":
            blockers = self._contention.blockers
            return LockTimeout(
                f"{migration.name}, line {statement.line}: no lock within {self._lock_timeout:g} s, blocked by "
                f"{'; '.join(map(str, blockers)) or 'a session that was not seen'}. {_NOTHING}\n{said}",
                solutions=["Rehearse when it is done.", *(blocker.advice for blocker in blockers)],
                sqlstate=error.sqlstate,
            )
        solutions = [*described.solutions]
        if self._skipped is not None:
            solutions.insert(0, f"It may only miss what was skipped: {self._skipped}.")
        message = f"{migration.name} would fail in line {statement.line}. {_NOTHING}\n{said}"
        return MigrationError(message, solutions=solutions, sqlstate=error.sqlstate)

    def _check_deferred(self, last: Migration) -> bool:
        """Check what COMMIT would."""
        try:
            self._lower_timeouts()
            self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            if self._is_over(error):
                return False
            raise MigrationError(
                f"It would fail at COMMIT, at the latest of {last.name}. {_NOTHING}\n"
                f"Server: {error.diag.message_primary or error}",
                sqlstate=error.sqlstate,
            ) from None
        return True

    def _lower_timeouts(self) -> None:
        """Leave the server what remains of the time, whatever a file has set."""
        left = max(1, round(1000 * (self._deadline - time.monotonic())))
        self._connection.execute(
            "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true), "
            "set_config('idle_in_transaction_session_timeout', %s, true)",
            [f"{left}", f"{1000 * self._lock_timeout:.0f}", f"{left + 1000}"],
        )

    def _look(self) -> dict[int, _Relation]:
        rows = self._connection.execute(_RELATIONS).fetchall()
        return {relation.oid: relation for row in rows if (relation := _Relation(*row))}  # type: ignore[arg-type]

    def _compare(self, observation: Observation) -> None:
        """Note the locks and files that are new. What the rehearsal itself has made is nobody else's, and left out."""
        for oid, mode in self._connection.execute(_LOCKS, {"strengths": _STRENGTHS}).fetchall():
            relation, strength = self._before.get(int(str(oid))), _STRENGTHS.index(str(mode))
            if relation is None or relation.kind == "i" or strength >= self._held.get(relation.oid, len(_STRENGTHS)):
                continue
            self._held[relation.oid] = strength
            observation.locks.append(f"{relation.name} ({BLOCKS[str(mode)]})")
        before = {relation.name: relation for relation in self._before.values()}
        old = {relation.name: relation for relation in self._relations.values()}
        self._relations = self._look()
        for relation in self._relations.values():
            # By name: an index on a column that changes its type is made anew, as another one of that name.
            was = old.get(relation.name)
            if was is not None and relation.name in before and was.file != relation.file and relation.kind in _KIND:
                observation.rewrites.append(f"{_KIND[relation.kind]} {relation.name} ({was.size})")


def _explain(pending: Sequence[Migration]) -> str:
    """Say what a rehearsal would do here, as far as the statements tell without running them."""
    from migrations.lint.locks import access_exclusive  # takes long to load, for a rare case
    from migrations.lint.nodes import CreateTable
    from migrations.lint.parse import parse

    nodes = [parse(statement.text).node for migration in pending for statement in migration.up.statements]
    made = [node.table for node in nodes if isinstance(node, CreateTable)]
    locked = [
        name.text
        for node in nodes
        for name in access_exclusive(node, {})
        if not any(name.is_same(other) for other in made)
    ]
    lines = [
        f"This is a production database. A rehearsal runs {len(nodes)} statements of {len(pending)} files on it and "
        f"rolls them back; for up to {SECONDS:g} s it holds the locks that they take.",
        "Files: " + ", ".join(migration.name for migration in pending),
    ]
    if locked:
        tables = ", ".join(dict.fromkeys(locked))
        lines.append(f"Nobody reads or writes these while it lasts (ACCESS EXCLUSIVE): {tables}")
    return "\n".join(lines)

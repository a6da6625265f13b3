"""Our exceptions: a stable code, what happened, what to do.

Everything this project raises on purpose is an `Error`. The command line prints its message and solutions and exits
with its `exit_code`; an endpoint logs it and answers with a problem document that tells less.
"""

from collections.abc import Sequence
from typing import ClassVar


class Error(Exception):
    """Say what happened in one sentence, and carry what to do about it.

    `message` never holds a secret: callers mask before they raise. `sqlstate` is PostgreSQL's five-character code
    where the server gave one (PostgreSQL manual, appendix A). `of_replica` tells that it was met at the replica.
    """

    code: ClassVar[str] = "unexpected"
    exit_code: ClassVar[int] = 1
    of_replica = False

    def __init__(self, message: str, *, solutions: Sequence[str] = (), sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.solutions = tuple(solutions)
        self.sqlstate = sqlstate


class ConfigurationError(Error):
    """A variable or a connection string is missing, wrong or contradicts another."""

    code = "configuration"
    exit_code = 3


class DatabaseUnavailable(Error):
    """No connection could be made, or the one in use was lost."""

    code = "database_unavailable"
    exit_code = 4


class TooManyConnections(DatabaseUnavailable):
    """The server or a pooler has no room for another connection (53300)."""

    code = "too_many_connections"


class CannotConnectNow(DatabaseUnavailable):
    """The server is starting, stopping or recovering (57P03); it may answer in a moment."""

    code = "cannot_connect_now"


class ConnectionTimeout(DatabaseUnavailable):
    """The server did not answer while connecting: a firewall drops packets, or a database at rest wakes up."""

    code = "connection_timeout"


class ConnectionRefused(DatabaseUnavailable):
    """Nobody listens at the address: it is wrong, or the server is down, as for a moment when it restarts."""

    code = "connection_refused"


class ConnectionFailure(DatabaseUnavailable):
    """The connection broke while it was being made (08006)."""

    code = "connection_failure"


class InvalidPassword(DatabaseUnavailable):
    """The server refused the user name or the password (28P01)."""

    code = "invalid_password"


class UnsupportedStartupParameter(DatabaseUnavailable):
    """A pooler does not take a parameter of the start-up packet (08P01)."""

    code = "unsupported_startup_parameter"


class PoolTimeout(DatabaseUnavailable):
    """Every connection of this process stayed in use for as long as the caller could wait."""

    code = "pool_timeout"


class PoolClosed(DatabaseUnavailable):
    """A connection was asked for after `close_db()`."""

    code = "pool_closed"


class TransactionResolutionUnknown(Error):
    """The connection was lost during COMMIT (08007): whether the transaction was kept is unknown."""

    code = "transaction_resolution_unknown"
    exit_code = 4


class DeadlineExceeded(Error):
    """The request's time was used up; the statement under way was cancelled on the server."""

    code = "deadline_exceeded"
    exit_code = 4


class Overloaded(Error):
    """Every thread of this process stayed busy for as long as a request may wait for one."""

    code = "overloaded"
    exit_code = 4


class Unhealthy(Error):
    """The database answers, but is not as it must be (tables missing, a check failed)."""

    code = "unhealthy"
    exit_code = 5


class MigrationError(Error):
    """A migration file is malformed, or failed when it was applied."""

    code = "migration"
    exit_code = 6


class LockTimeout(Error):
    """Somebody else held a lock of ours, such as the migration lock, for longer than we may wait."""

    code = "lock_timeout"
    exit_code = 7


class Refused(Error):
    """The command would be unsafe as asked; the solutions say how to insist."""

    code = "refused"
    exit_code = 8


class DirectConnectionRequired(Refused):
    """Migrations need the server itself, and only the way through a pooler is known."""

    code = "direct_connection_required"
    exit_code = 11


class EnvironmentMismatch(Refused):
    """The database belongs to another environment than the one in force."""

    code = "environment_mismatch"
    exit_code = 12


class HistoryMismatch(Error):
    """A migration file was edited, removed or put before others after it, or they, had been applied."""

    code = "history_mismatch"
    exit_code = 13


class DatabaseAhead(Error):
    """The database has revisions that this code does not know, and `--strict` was asked for."""

    code = "database_ahead"
    exit_code = 14


class LintError(Error):
    """A pending migration would stop the site or lose data, and its file gives no reason."""

    code = "lint"
    exit_code = 15


class BackupError(Error):
    """A backup is incomplete, damaged or not what its manifest says, or making or restoring it failed."""

    code = "backup"
    exit_code = 16


class LocalEnvironmentError(Error):
    """This machine lacks what the command needs: a free port, disk space, a binary."""

    code = "local_environment"
    exit_code = 9


class DatabaseError(Error):
    """The server refused a statement; `sqlstate` says why, `constraint` which, `__cause__` is the driver's."""

    code = "database_error"
    exit_code = 10

    def __init__(
        self,
        message: str,
        *,
        solutions: Sequence[str] = (),
        sqlstate: str | None = None,
        constraint: str | None = None,
    ) -> None:
        super().__init__(message, solutions=solutions, sqlstate=sqlstate)
        self.constraint = constraint


class UndefinedTable(DatabaseError):
    """A table does not exist (42P01): most often the migrations have not run."""

    code = "undefined_table"


class IntegrityError(DatabaseError):
    """A constraint was violated (SQLSTATE class 23)."""

    code = "integrity"


class UniqueViolation(IntegrityError):
    """A row with that key exists already (23505)."""

    code = "unique_violation"


class ForeignKeyViolation(IntegrityError):
    """The row refers to one that is not there, or is still referred to (23503)."""

    code = "foreign_key_violation"


class NotNullViolation(IntegrityError):
    """A column that needs a value got none (23502)."""

    code = "not_null_violation"


class CheckViolation(IntegrityError):
    """A value breaks a CHECK constraint (23514)."""

    code = "check_violation"


class DataException(DatabaseError):
    """A value does not fit its type: too long, out of range, malformed, no text (22001, 22003, 22007, 22P02, ...)."""

    code = "data_exception"


class SerializationFailure(DatabaseError):
    """Another transaction won (40001); running the whole transaction again may succeed."""

    code = "serialization_failure"


class DeadlockDetected(DatabaseError):
    """Two transactions waited for each other (40P01); running the whole transaction again may succeed."""

    code = "deadlock_detected"


class LockNotAvailable(DatabaseError):
    """A row or table lock was not given in time (55P03)."""

    code = "lock_not_available"


class QueryCanceled(DatabaseError):
    """The server ended the statement: statement_timeout, or somebody cancelled it (57014)."""

    code = "query_canceled"

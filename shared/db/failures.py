"""What a driver or server said, as an error of ours: one table for statements, one for connecting."""

import re
from collections.abc import Mapping

from shared import errors

_BY_SQLSTATE: Mapping[str, type[errors.DatabaseError]] = {
    # Of class 22 those that a client's value causes; the others, such as a division by zero, are the statement's.
    **dict.fromkeys(("22001", "22003", "22007", "22008", "22021", "22P02", "22P05"), errors.DataException),
    "23502": errors.NotNullViolation,
    "23503": errors.ForeignKeyViolation,
    "23505": errors.UniqueViolation,
    "23514": errors.CheckViolation,
    "40001": errors.SerializationFailure,
    "40P01": errors.DeadlockDetected,
    "42P01": errors.UndefinedTable,
    "55P03": errors.LockNotAvailable,
    "57014": errors.QueryCanceled,
}

# The server ends the connection, or never gave one (PostgreSQL manual, appendix A): class 08, and these.
_CONNECTION_LOST = ("25P03", "25P04", "53300", "57P01", "57P02", "57P03", "57P04", "57P05")

# The idle timeouts: the server heeds them before it runs what it has read (tcop/postgres.c, PostgresMain).
_ENDED_WHILE_IDLE = ("25P03", "57P05")


def error_from(sqlstate: str | None, message: str, constraint: str | None = None) -> errors.Error:
    """Give the error of ours for what a server or driver said; without a SQLSTATE the connection failed."""
    if sqlstate is None or is_lost(sqlstate):
        return errors.DatabaseUnavailable(message, sqlstate=sqlstate)
    kind = _BY_SQLSTATE.get(sqlstate)
    if kind is None:
        kind = errors.IntegrityError if sqlstate.startswith("23") else errors.DatabaseError
    return kind(message, sqlstate=sqlstate, constraint=constraint)


def is_lost(sqlstate: str | None) -> bool:
    """Tell whether a server or driver that said this has no connection for us any more."""
    return sqlstate is None or sqlstate.startswith("08") or sqlstate in _CONNECTION_LOST


def needs_another_server(error: BaseException | None) -> bool:
    """Tell whether this connection leads to a server that takes no writes, as the old primary after a failover."""
    return isinstance(error, errors.Error) and error.sqlstate == "25006"


def was_never_run(error: errors.Error) -> bool:
    """Tell whether the statement that this answers was not run, so that it may be sent again, a COMMIT too.

    The server had ended the session while that was idle, or a pooler had no server to send it to (PgBouncer).
    """
    if error.sqlstate in _ENDED_WHILE_IDLE:
        return True
    return error.sqlstate == "08P01" and "server login has been failing" in error.message


# The server's and the poolers' words, where the driver gives no SQLSTATE for a connection that was refused.
_CONNECT_FAILURES: tuple[tuple[re.Pattern[str], frozenset[str], type[errors.DatabaseUnavailable]], ...] = (
    (
        re.compile(
            "too many clients|too many connections|connection slots are reserved|no more connections allowed"
            "|MaxClientsInSessionMode|max client connections reached",
            re.IGNORECASE,
        ),
        frozenset({"53300"}),
        errors.TooManyConnections,
    ),
    (re.compile("connection timeout expired|timed out", re.IGNORECASE), frozenset(), errors.ConnectionTimeout),
    (re.compile("connection refused", re.IGNORECASE), frozenset(), errors.ConnectionRefused),
    (
        re.compile("server closed the connection unexpectedly|unexpected eof|reset by peer|network error"),
        frozenset({"08006"}),
        errors.ConnectionFailure,
    ),
    (
        re.compile("starting up|shutting down|not yet accepting connections|in recovery mode", re.IGNORECASE),
        frozenset({"57P03"}),
        errors.CannotConnectNow,
    ),
    (
        re.compile("unsupported (options )?startup parameter", re.IGNORECASE),
        frozenset(),
        errors.UnsupportedStartupParameter,
    ),
    (re.compile("(password|SASL) authentication failed", re.IGNORECASE), frozenset({"28P01"}), errors.InvalidPassword),
)


def connect_error_from(sqlstate: str | None, message: str) -> errors.DatabaseUnavailable:
    """Give the error of ours for a connection that could not be made."""
    for words, states, kind in _CONNECT_FAILURES:
        if sqlstate in states or words.search(message):
            return kind(message, sqlstate=sqlstate)
    return errors.DatabaseUnavailable(message, sqlstate=sqlstate)


def first_line(text: object) -> str:
    """Keep the first line of a driver's text: what follows repeats it, or holds data."""
    return next(iter(str(text).strip().splitlines()), "no reason given")

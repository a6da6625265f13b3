"""Any error of the database as one diagnosis: a stable code, the cause in a sentence, and what to do.

`TABLE` is the one list of what is known; docs/TROUBLESHOOTING.md shows it. It is imported when an error is diagnosed,
never at a cold start.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

from shared import errors, settings
from shared.db import diagnosis_connecting, diagnosis_poolers, diagnosis_statements, diagnosis_tls
from shared.db.diagnosis_row import Row
from shared.db.providers import role_of
from shared.db.url import DatabaseURL

# The first row that fits counts: what somebody says in words of his own comes before what a network does.
TABLE: tuple[Row, ...] = (
    *diagnosis_tls.ROWS,
    *diagnosis_poolers.ROWS,
    *diagnosis_statements.ROWS,
    *diagnosis_connecting.ROWS,
)
UNKNOWN = Row(
    "unknown",
    "No row of the table of diagnoses knows this error; its SQLSTATE is {sqlstate}.",
    (
        "Look the SQLSTATE up: PostgreSQL manual, appendix A. The message in the log is the server's or driver's own.",
        "Look at the server's log at that time, and at the pooler's, where there is one.",
    ),
)
_BY_CODE = {row.code: row for row in TABLE}

# SQLSTATE classes under which servers and poolers say what only their words tell: connection exceptions, invalid
# authorization, insufficient resources, operator intervention, system and internal errors. The words of any other
# may be a user's own, as those of RAISE.
_WORDS_COUNT = ("08", "28", "53", "57", "58", "XX")
# These say it all, whatever caused them.
_OURS = (errors.DeadlineExceeded, errors.PoolTimeout, errors.PoolClosed, errors.TransactionResolutionUnknown)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and what to do; it holds the user's own names, and never a secret."""

    code: str
    cause: str
    solutions: tuple[str, ...]
    sqlstate: str | None = None


def diagnose(
    error: BaseException, url: DatabaseURL | None = None, *, probe: bool = False, timeout: float = 5.0
) -> Diagnosis:
    """Diagnose an error of ours, of psycopg, pg8000 or SQLAlchemy, or one of Python's that came through them.

    `url` gives the names. With `probe`, a connect error whose text does not tell why is looked into by connecting to
    `url` once more, in `timeout` seconds at most.
    """
    said = _said_by(error)
    ours = next((link for link in _chain(error) if isinstance(link, _OURS)), None)
    row = _BY_CODE[ours.code] if ours else _row_for(said, url)
    if row is None and isinstance(error, errors.Error):
        if error.solutions:
            return Diagnosis(error.code, error.message, error.solutions, said.sqlstate)
        row = _BY_CODE.get(error.code)
    if row is not None and row.code == "invalid_password" and url is not None and not url.password:
        row = _BY_CODE["no_password"]  # pg8000 sends an empty one
    more: tuple[str, ...] = ()
    may_probe = probe and url is not None and (row.is_vague if row else not said.is_about_a_statement)
    if may_probe and url is not None:
        from shared.db import wire_probe  # and ssl, which a function that only logs can do without

        seen = wire_probe.probe(url, timeout)
        more = ("Seen just now: " + "; ".join(seen.steps) + ".",)
        told = _Said(seen.sqlstate or said.sqlstate, [seen.trouble])
        row = _row_for(told, url) or row
        said = _Said(told.sqlstate, [*told.texts, *said.texts])
    row = row or UNKNOWN
    cause, solutions = row.written(_names(row, said, url))
    return Diagnosis(row.code, cause, (*solutions, *more), said.sqlstate)


def explain(error: errors.Error, *, probe: bool = False, timeout: float = 5.0) -> Diagnosis:
    """Diagnose an error of ours with the names in DATABASE_URL, or in the replica's, where that can be read."""
    try:
        current = settings.get_settings()
        url = (current.replica_database_url if error.of_replica else None) or current.database_url
    except errors.ConfigurationError:
        url = None
    return diagnose(error, url, probe=probe, timeout=timeout)


def for_log(error: errors.Error) -> dict[str, object]:
    """Give what a log's record has beside its message, as its `extra`. Asks nobody: it costs no time."""
    found = explain(error)
    return {
        "sqlstate": found.sqlstate,
        "diagnosis": found.code,
        "cause": found.cause,
        "solutions": list(found.solutions),
    }


@dataclass
class _Said:
    """What an error and those that caused it say."""

    sqlstate: str | None = None
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def is_about_a_statement(self) -> bool:
        return self.sqlstate is not None and not self.sqlstate.startswith(_WORDS_COUNT)


def _row_for(said: _Said, url: DatabaseURL | None) -> Row | None:
    """Find the row: by SQLSTATE and words, by words where they count, then by the SQLSTATE alone."""
    text = said.text
    if url is not None and url.params.get("sslnegotiation") == "direct":
        text += "\n(sslnegotiation=direct)"
    if url is not None and url.hosts[0].is_socket:
        text += "\n(on a Unix socket)"
    same_state = [row for row in TABLE if said.sqlstate in row.sqlstates]
    candidates = [row for row in same_state if row.says]
    if not said.is_about_a_statement:
        candidates += [row for row in TABLE if row.says]
    for row in candidates:
        if row.pattern.search(text):
            return row
    return next((row for row in same_state if not row.needs_words), None)


def _names(row: Row, said: _Said, url: DatabaseURL | None) -> dict[str, str]:
    """Give the names for a row's sentences: those of the URL, and before them those that the error says."""
    names = {"sqlstate": said.sqlstate or "not given"}
    if url is not None:
        names |= {"host": url.host, "port": str(url.port), "user": url.user, "database": url.database}
        names["role"] = role_of(url)
    match = row.pattern.search(said.text) if row.says else None
    if match is not None:
        found = {name.rstrip("_"): value for name, value in match.groupdict().items() if value}
        if url is None and "user" in found:
            found.setdefault("role", found["user"])
        names |= found
    return names


# -- reading exceptions -----------------------------------------------------------------------------


def _said_by(error: BaseException) -> _Said:
    words = [_words_of(link) for link in _chain(error)]
    said = next((sqlstate for sqlstate, _ in words if sqlstate), None)
    # What was said with a SQLSTATE is the server's word; the rest is what drivers made of it.
    return _Said(said, [text for sqlstate, text in words if sqlstate == said])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what caused it; of SQLAlchemy's, what it wraps: its own text has the statement and its data."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        original = getattr(link, "orig", None)
        if isinstance(original, BaseException):
            link = original
            continue
        yield link
        # What was being handled when one of ours was raised is its cause only where it says so.
        implied = None if isinstance(link, errors.Error) or link.__suppress_context__ else link.__context__
        link = link.__cause__ or implied


def _words_of(error: BaseException) -> tuple[str | None, str]:
    """Give the SQLSTATE and the words of one error."""
    if isinstance(error, errors.Error):
        return error.sqlstate, error.message
    fields = _fields_of_pg8000(error)
    if fields:
        return fields.get("C"), fields.get("M", "")
    sqlstate = getattr(error, "sqlstate", None)
    text = str(error)
    if isinstance(sqlstate, str):
        # What follows the first line is the statement's, and may be data.
        return sqlstate, text.partition("\n")[0]
    return None, _in_english(error) or text


def _fields_of_pg8000(error: BaseException) -> dict[str, str]:
    """Give the fields of an ErrorResponse (manual 54.8), also of one that pg8000 read and then lost.

    After a FATAL the server closes, but pg8000 goes on reading for a ReadyForQuery, and raises "network error". What
    it had read is still in the frame that was reading.
    """
    if error.args and isinstance(error.args[0], dict):
        return error.args[0]
    for frame in _frames(error):
        if frame.f_code.co_name == "handle_messages":
            lost = getattr(frame.f_locals.get("context"), "error", None)
            if lost is not None and lost.args and isinstance(lost.args[0], dict):
                fields: dict[str, str] = lost.args[0]
                return fields
    return {}


def _in_english(error: BaseException) -> str:
    """Give the table's words for what Python says by the type of its exceptions, maybe in another language."""
    if isinstance(error, socket.gaierror):
        return "Servname not supported" if error.errno == socket.EAI_SERVICE else "Name or service not known"
    if isinstance(error, ConnectionRefusedError):
        return "Connection refused"
    if isinstance(error, ConnectionError):
        return "connection reset"
    frames = {(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame in _frames(error)}
    if isinstance(error, TimeoutError):
        # pg8000 has one timeout for each read, whatever it waits for.
        return "no answer to a statement" if ("pg8000.core", "handle_messages") in frames else "timed out"
    if isinstance(error, AttributeError) and ("pg8000.core", "handle_AUTHENTICATION_REQUEST") in frames:
        return "no password supplied"
    return ""


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next

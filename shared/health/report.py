"""All checks, made over one connection, as one report. Making it never raises."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared import db, deadline
from shared.clock import timestamp
from shared.db.drivers import Connection
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, DatabaseError, Error, PoolTimeout
from shared.health.result import Check, Finding, Result, Verdict, worst
from shared.health.server import Server
from shared.health.topics import TOPICS
from shared.settings import get_settings

log = logging.getLogger(__name__)

TIME_LIMIT = 15.0  # seconds for the whole report
_POOL_WAIT = 1.0  # seconds to wait for a connection of the pool, before one is opened beside it


@dataclass(frozen=True)
class Report:
    """What all checks found at one time. `error` is why there is no connection, for who may see the host's name."""

    time: str  # RFC 3339
    results: tuple[Result, ...]
    error: Error | None = None

    @property
    def status(self) -> Verdict:
        """Give the worst verdict; what could not be looked at counts for nothing, unless that is everything."""
        status = worst(result.verdict for result in self.results)
        return "fail" if status == "unknown" else status

    def __getitem__(self, name: str) -> Result:
        """Give a check's result by its name."""
        return next(result for result in self.results if result.name == name)

    def as_object(self) -> dict[str, Any]:
        """Give it for JSON: an object with `status` and `checks`."""
        return {"status": self.status, "time": self.time, "checks": [result.as_object() for result in self.results]}


def make_report(connection: Connection | None = None, url: DatabaseURL | None = None) -> Report:
    """Make all checks, within TIME_LIMIT and the deadline.

    They run over `connection`, which led to `url`; without one over one of this process's pool, or beside it where the
    pool is busy.
    """
    time = timestamp()
    with deadline.within(TIME_LIMIT):
        try:
            with _server(connection, url) as server:
                results = [_result(topic, check, server) for topic, checks in TOPICS.items() for check in checks]
        except Error as error:
            return Report(time, tuple(_without_connection(error)), error)
    return Report(time, tuple(results))


@contextlib.contextmanager
def _server(connection: Connection | None, url: DatabaseURL | None) -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        is_ours = False
        if connection is None:
            url = get_settings().database_url
            try:
                connection = stack.enter_context(db.get_pool().lease(_POOL_WAIT))
                is_ours = True
            except PoolTimeout:
                connection = stack.enter_context(contextlib.closing(db.open_connection()))
        server = Server(connection, url, is_ours=is_ours)
        try:
            yield server
        finally:
            server.end()


def _result(topic: str, check: Check, server: Server) -> Result:
    try:
        finding = check.look(server)
    except Error as error:
        finding = _unknown(error, server)
    except Exception:
        log.exception("health: the check %s is defective", check.name)
        finding = Finding("This check is defective: the log has the traceback.", verdict="unknown")
    return _made(topic, check, finding)


def _made(topic: str, check: Check, finding: Finding) -> Result:
    return Result(
        topic=topic,
        name=check.name,
        title=check.title,
        verdict=finding.verdict,
        summary=finding.summary,
        value=finding.value,
        unit=check.unit,
        threshold=finding.threshold or check.threshold,
        rows=finding.rows,
        advice=finding.advice,
        sql=finding.sql,
    )


def _unknown(error: Error, server: Server) -> Finding:
    if error.sqlstate == "42501":  # insufficient_privilege
        return Finding(f"It may not be read: {error.message}.", verdict="unknown", sql=(server.grant,))
    # The words of a broken connection name the host.
    why = f"{error.code}: {error.message}" if isinstance(error, DatabaseError) else error.code
    return Finding(f"It could not be looked at: {why}.", verdict="unknown")


def _without_connection(error: Error) -> Iterator[Result]:
    """Give the results where there is no connection: only that is known, and it is all that matters."""
    from shared.db.diagnosis import explain

    code = explain(error).code
    for topic, checks in TOPICS.items():
        for check in checks:
            if check.name != "connection":
                finding = Finding("There is no connection.", verdict="unknown")
            elif isinstance(error, ConfigurationError):
                finding = Finding("The configuration is wrong: the log says what.", verdict="fail")
            else:
                finding = Finding(f"There is no connection: {code}.", verdict="fail", advice=(_WHERE,))
            yield _made(topic, check, finding)


_WHERE = "The log, and `db doctor` with the same DATABASE_URL, tell the cause and what to do."

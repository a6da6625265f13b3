"""A server of its own for the checks of a server's state, and how a report is made."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared import db
from shared.health.report import Report, make_report
from shared.settings import reset_settings
from tests.servers import binaries
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres

Reporting = Callable[..., Report]

# Few connections, and ids that grow old soon; nothing in the background that would mend what a test breaks.
SETTINGS = {
    "max_connections": "15",
    "reserved_connections": "1",
    "autovacuum_freeze_max_age": "100000",
    "vacuum_failsafe_age": "1000000000",
    "autovacuum_naptime": "1h",
    "shared_preload_libraries": "pg_stat_statements",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}


@pytest.fixture
def report_on(monkeypatch: pytest.MonkeyPatch) -> Reporting:
    """Make a report on the database of a URL, with further variables: report_on(url, APP_ENV="production")."""

    def report_on(url: str, **variables: str) -> Report:
        for name, value in {"APP_ENV": "test", "DATABASE_URL": url, **variables}.items():
            monkeypatch.setenv(name, value)
        reset_settings()
        try:
            return make_report()
        finally:
            db.close_db(grace=0)

    return report_on


@pytest.fixture(scope="session")
def lonely_postgres(run_directory: Path) -> Iterator[Postgres]:
    """Return a server with SETTINGS, which tests share: each leaves it as it was."""
    with servers.running(binaries.MAJORS[-1], run_directory / "health", SETTINGS) as postgres:
        yield postgres


@pytest.fixture
def lonely_database(lonely_postgres: Postgres) -> Iterator[str]:
    """Return the URL of a fresh database of that server."""
    with lonely_postgres.database() as name:
        yield lonely_postgres.url(name)
        db.close_db(grace=0)

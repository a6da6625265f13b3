"""Migrations go to the server itself, or refuse."""

import pytest

from migrations import runner
from migrations.connection import connect
from shared.errors import Refused
from shared.settings import reset_settings
from tests.servers.pgbouncer import PgBouncer


@pytest.fixture
def pooled(database: str, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have DATABASE_URL lead to a pooler; give the direct URL."""
    monkeypatch.setenv("DATABASE_URL", pgbouncer.url(database) + "?pgbouncer=true")
    reset_settings()
    return database


def test_a_pooler_without_a_direct_url_is_refused(pooled: str) -> None:
    with pytest.raises(Refused, match="leads to a pooler") as caught:
        runner.deploy(report=lambda _: None)
    assert "DIRECT_URL" in caught.value.solutions[0]


def test_the_direct_url_is_used_beside_a_pooler(pooled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRECT_URL", pooled)
    reset_settings()
    result = runner.deploy(report=lambda _: None)
    assert result.status.state == "equal"
    assert len(result.applied) == 4


def test_the_urls_schema_is_where_tables_are_made(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{database}?schema=My%20App")
    reset_settings()
    with connect() as connection:
        connection.execute('CREATE SCHEMA "My App"')
    runner.deploy(report=lambda _: None)
    with connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'My App'").fetchone()
    assert row == (5,)  # the four, and Alembic's own

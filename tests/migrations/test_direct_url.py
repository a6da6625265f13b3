"""Migrations go to the server itself, or refuse."""

from collections.abc import Callable

import pytest

from migrations import files, ledger, runner
from migrations.connection import connect
from shared.db.providers import Provider
from shared.db.schema_head import TABLES
from shared.errors import DirectConnectionRequired
from shared.settings import reset_settings
from tests.migrations import catalog
from tests.servers import binaries
from tests.servers.pgbouncer import PgBouncer


@pytest.fixture
def pooled(database: str, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have DATABASE_URL lead to a pooler; give the direct URL."""
    monkeypatch.setenv("DATABASE_URL", pgbouncer.url(database) + "?pgbouncer=true")
    reset_settings()
    return database


def test_a_pooler_without_a_direct_url_is_refused(pooled: str) -> None:
    with pytest.raises(DirectConnectionRequired, match="leads to a pooler") as caught:
        runner.deploy(report=lambda _: None)
    assert "DIRECT_URL" in caught.value.solutions[0]


def test_the_direct_url_is_used_beside_a_pooler(pooled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRECT_URL", pooled)
    reset_settings()
    result = runner.deploy(report=lambda _: None)
    assert result.status.state == "equal"
    assert len(result.applied) == len(files.chain())


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
@pytest.mark.parametrize("options", ["rejected", "dropped"])
def test_a_pooler_that_no_address_tells_is_refused(
    database: str, pgbouncer_of: Callable[..., PgBouncer], use: Callable[..., None], pool_mode: str, options: str
) -> None:
    """It rejects our start-up options, or another backend answers than the one it named while connecting."""
    ignored = {"ignore_startup_parameters": "options,extra_float_digits"} if options == "dropped" else {}
    pooler = pgbouncer_of(binaries.PGBOUNCERS[0], pool_mode=pool_mode, **ignored)
    use(DATABASE_URL=pooler.url(database), APP_ENV="test")

    for run in (runner.deploy, runner.dry_run, runner.downgrade):
        with pytest.raises(
            DirectConnectionRequired, match=rf"A pooler answers at 127\.0\.0\.1:{pooler.port}"
        ) as caught:
            run(report=lambda _: None)
    assert "DIRECT_URL" in caught.value.solutions[0]
    assert catalog.tables(database) == []


def test_a_session_pooler_that_is_known_serves(
    database: str, pgbouncer_of: Callable[..., PgBouncer], use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Supabase's on port 5432: it takes no start-up options, so they are set once the connection is there."""
    session = Provider("Supabase, session pooler", "session")
    monkeypatch.setattr("migrations.connection.provider_of", lambda _: session)
    use(DATABASE_URL=pgbouncer_of(binaries.PGBOUNCERS[0], pool_mode="session").url(database), APP_ENV="test")

    runner.deploy(report=lambda _: None)

    assert runner.status().state == "equal"
    with connect() as connection:
        assert connection.execute("SHOW lock_timeout").fetchone() == ("3s",)


def test_the_urls_schema_is_where_tables_are_made(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{database}?schema=My%20App")
    reset_settings()
    with connect() as connection:
        connection.execute('CREATE SCHEMA "My App"')
    runner.deploy(report=lambda _: None)
    with connect() as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'My App'").fetchall()
    assert {row[0] for row in rows} == {*TABLES, "alembic_version", *ledger.TABLES}

"""Checks of a server's state, provoked on a server of their own: a standby, slots, old ids, slow statements."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from shared.health import thresholds
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres
from tests.servers.tls import TLSPostgres
from tests.shared.db.watching import name_of, until
from tests.shared.health.conftest import Reporting


@pytest.fixture(scope="module")
def follower(lonely_postgres: Postgres) -> Iterator[Postgres]:
    """Return a hot standby of the server of this folder."""
    with servers.standby(lonely_postgres, lonely_postgres.server.data_dir.with_name("follower")) as postgres:
        yield postgres


@pytest.fixture
def admin(lonely_postgres: Postgres) -> psycopg.Connection[Any]:
    return lonely_postgres.admin()


def test_settings_that_hurt_are_told_with_what_mends_them(
    report_on: Reporting, database: str, lonely_postgres: Postgres, lonely_database: str, admin: psycopg.Connection[Any]
) -> None:
    assert report_on(lonely_database)["settings"].verdict == "ok"
    # The tests' shared server need not survive a crash.
    found = report_on(database)["settings"]
    assert (found.verdict, found.value) == ("fail", 3)
    assert "ALTER SYSTEM SET fsync = 'on';" in found.sql

    name = name_of(lonely_database)
    admin.execute(f"ALTER DATABASE {name} SET enable_seqscan = off")
    admin.execute("ALTER SYSTEM SET shared_buffers = '64MB'")
    lonely_postgres.reload()
    try:
        found = report_on(lonely_database)["settings"]
    finally:
        admin.execute("ALTER SYSTEM RESET shared_buffers")
        lonely_postgres.reload()
    assert {row["setting"] for row in found.rows} >= {"enable_seqscan", "shared_buffers"}
    assert (found.verdict, found.sql) == ("warn", ("ALTER ROLE \"app\" SET enable_seqscan = 'on';",))


def test_ids_that_grow_old(report_on: Reporting, lonely_database: str, admin: psycopg.Connection[Any]) -> None:
    young = report_on(lonely_database)["wraparound"]
    assert young.verdict == "ok"
    assert young.threshold is not None
    assert young.threshold.fail == 100 * 1_000_000_000 / 100_000

    # In one transaction, each block with an exception handler takes an id when it writes.
    admin.execute("""
        CREATE TEMP TABLE ids (n int);
        DO $$ BEGIN
            FOR i IN 1..150001 LOOP
                BEGIN INSERT INTO ids VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END;
            END LOOP;
        END $$;
        DROP TABLE ids
    """)
    old = report_on(lonely_database)["wraparound"]
    assert old.verdict == "warn"
    assert isinstance(old.value, float)
    assert old.value >= thresholds.WRAPAROUND_WARN
    assert old.rows[0]["transaction_ids"] > 150_000
    assert all(statement.startswith("VACUUM (FREEZE)") for statement in old.sql)


def test_replication_lag_on_both_sides(
    report_on: Reporting, lonely_database: str, follower: Postgres, admin: psycopg.Connection[Any]
) -> None:
    name = name_of(lonely_database)
    behind = follower.admin()
    as_admin = lonely_database.partition("@")[2].partition("/")[0]
    primary_url, standby_url = f"postgresql://postgres:admin-secret@{as_admin}/{name}", follower.admin_url(name)
    until(lambda: behind.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [name]).fetchone() == (1,))
    assert report_on(primary_url)["replication_lag"].verdict == "ok"
    until(lambda: report_on(standby_url)["replication_lag"].verdict == "ok")

    behind.execute("SELECT pg_wal_replay_pause()")
    until(lambda: behind.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
    try:
        with psycopg.connect(lonely_database, autocommit=True) as client:
            client.execute(
                "CREATE TABLE much AS SELECT repeat(i::text, 200) AS text FROM generate_series(1, 25000) AS i"
            )
        until(lambda: report_on(primary_url)["replication_lag"].verdict == "warn")
        of_primary = report_on(primary_url)["replication_lag"]
        until(lambda: (report_on(standby_url)["replication_lag"].value or 0) > 16 * 1024**2)  # type: ignore[operator]
        of_standby = report_on(standby_url)
        hidden = report_on(lonely_database)["replication_lag"]
    finally:
        behind.execute("SELECT pg_wal_replay_resume()")

    assert isinstance(of_primary.value, int)
    assert of_primary.value > 16 * 1024**2
    assert of_primary.rows[0]["state"] == "streaming"
    lag = of_standby["replication_lag"]
    assert (lag.verdict, lag.sql) == ("warn", ("SELECT pg_wal_replay_resume();",))
    assert "a standby" in of_standby["connection"].summary
    assert {result.name for result in of_standby.results if result.verdict == "unknown"} <= {"slow_statements"}
    assert (hidden.verdict, hidden.sql) == ("unknown", ('GRANT pg_monitor TO "app";',))
    until(lambda: report_on(primary_url)["replication_lag"].verdict == "ok")


def test_a_slot_that_nobody_reads(report_on: Reporting, lonely_database: str, admin: psycopg.Connection[Any]) -> None:
    assert report_on(lonely_database)["replication_slots"].verdict == "ok"
    admin.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    try:
        found = report_on(lonely_database)["replication_slots"]
    finally:
        for statement in found.sql:
            admin.execute(statement.encode())
    assert (found.verdict, found.unit) == ("warn", "bytes")
    assert found.rows[0]["slot"] == "gone"
    assert found.sql == ("SELECT pg_drop_replication_slot('gone');",)
    assert report_on(lonely_database)["replication_slots"].verdict == "ok"


def test_slow_statements(
    report_on: Reporting, lonely_database: str, lonely_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = report_on(lonely_database)["slow_statements"]
    assert (without.verdict, without.sql) == ("unknown", ("CREATE EXTENSION pg_stat_statements;",))

    url = lonely_postgres.admin_url(name_of(lonely_database))
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute('CREATE SCHEMA "Odd"; CREATE EXTENSION pg_stat_statements SCHEMA "Odd"')
        admin.execute('SELECT "Odd".pg_stat_statements_reset()')
        for _ in range(thresholds.SLOW_MIN_CALLS):
            admin.execute("SELECT 'canary', pg_sleep(0.02)")
    found = report_on(url)["slow_statements"]
    assert found.verdict == "ok"
    row = found.rows[0]
    assert (row["calls"], row["query"]) == (10, "SELECT $1, pg_sleep($2)")
    assert row["mean_seconds"] >= 0.02
    monkeypatch.setattr(thresholds, "SLOW_STATEMENT", thresholds.SLOW_STATEMENT._replace(warn=0.02))
    assert report_on(url)["slow_statements"].verdict == "warn"

    unprivileged = report_on(lonely_database)["slow_statements"]
    assert "SELECT $1, pg_sleep($2)" not in {row["query"] for row in unprivileged.rows}
    assert 'GRANT pg_monitor TO "app";' in unprivileged.sql


def test_slow_statements_where_the_library_is_not_loaded(
    report_on: Reporting, database: str, postgres: Postgres
) -> None:
    url = postgres.admin_url(name_of(database))
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
    found = report_on(url)
    assert found["slow_statements"].verdict == "unknown"
    assert "shared_preload_libraries" in found["slow_statements"].advice[0]
    assert found["settings"].verdict == "fail", "what comes after it is looked at all the same"


def test_checkpoints_before_their_time(
    report_on: Reporting, lonely_database: str, admin: psycopg.Connection[Any]
) -> None:
    assert report_on(lonely_database)["checkpoints"].verdict == "ok"
    for _ in range(thresholds.CHECKPOINTS_MIN):
        admin.execute("CHECKPOINT")
    until(lambda: report_on(lonely_database)["checkpoints"].value is not None)
    found = report_on(lonely_database)["checkpoints"]
    assert found.verdict == "warn"
    assert found.rows[0]["requested"] >= thresholds.CHECKPOINTS_MIN


def test_autovacuum_that_is_off(report_on: Reporting, lonely_postgres: Postgres, lonely_database: str) -> None:
    admin = lonely_postgres.admin()
    admin.execute("ALTER SYSTEM SET autovacuum = off")
    lonely_postgres.reload()
    try:
        found = report_on(lonely_database)["autovacuum"]
    finally:
        for statement in found.sql:
            admin.execute(statement.encode())
        admin.execute("ALTER SYSTEM RESET autovacuum")
        lonely_postgres.reload()
    assert (found.verdict, found.value) == ("fail", "off")


def test_tls(report_on: Reporting, tls_postgres: TLSPostgres, database: str) -> None:
    assert (report_on(database)["tls"].verdict, report_on(database)["tls"].value) == ("ok", "none")
    for driver in ("psycopg", "pg8000"):
        url = f"{tls_postgres.postgres.admin_url()}?sslmode=require"
        found = report_on(url, DATABASE_DRIVER=driver)["tls"]
        assert (found.verdict, found.value) == ("ok", "TLSv1.3")

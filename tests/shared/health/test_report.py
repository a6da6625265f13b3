"""The report as a whole: every version, driver and role, poolers, failures on the way, and what it costs."""

import json
import re
from typing import Any

import psycopg
import pytest

from shared import db
from shared.db.session import identifier
from shared.errors import DatabaseUnavailable
from shared.health import server
from shared.health.report import Report, make_report
from shared.health.result import Check, Finding, Threshold, worst
from shared.health.server import Server
from shared.health.topics import TOPICS
from shared.settings import reset_settings
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy
from tests.shared.db.watching import name_of, sessions, until
from tests.shared.health.conftest import Reporting

NAMES = [check.name for checks in TOPICS.values() for check in checks]
NEEDS_AN_EXTENSION = {"slow_statements"}


def unknown(report: Report) -> set[str]:
    return {result.name for result in report.results if result.verdict == "unknown"}


def test_names_are_unique_and_each_has_its_place() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in (*NAMES, *TOPICS))


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
@pytest.mark.parametrize("is_superuser", [True, False])
def test_every_check_can_be_made_on_each_version(
    report_on: Reporting, any_postgres: Postgres, any_database: str, driver: str, is_superuser: bool
) -> None:
    with psycopg.connect(any_database, autocommit=True) as owner:
        owner.execute("CREATE TABLE t (id serial PRIMARY KEY, parent int REFERENCES t); INSERT INTO t DEFAULT VALUES")
    url = any_postgres.admin_url(name_of(any_database)) if is_superuser else any_database

    report = report_on(url, DATABASE_DRIVER=driver)

    assert [result.name for result in report.results] == NAMES
    assert unknown(report) == NEEDS_AN_EXTENSION
    assert report["server_version"].value == report["server_version"].summary.removeprefix("PostgreSQL ").rstrip(".")
    assert json.loads(json.dumps(report.as_object()))["status"] == report.status
    # What the role may not see is said, with what would show it.
    needing = [result.name for result in report.results if any("pg_monitor" in sql for sql in result.sql)]
    assert needing == ([] if is_superuser else ["connections", "long_running_queries", "idle_in_transaction"])


def test_a_role_that_may_see_what_others_do(
    report_on: Reporting, postgres: Postgres, database: str, lonely_postgres: Postgres
) -> None:
    hidden = report_on(database)
    assert "Not visible: what" in hidden["connections"].summary
    (grant,) = hidden["long_running_queries"].sql
    lonely = lonely_postgres.admin()
    with lonely_postgres.database() as name:
        lonely.execute(grant.encode())
        try:
            seen = report_on(lonely_postgres.url(name))
        finally:
            lonely.execute("REVOKE pg_monitor FROM app")
    assert not any("pg_monitor" in sql for result in seen.results for sql in result.sql)


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_through_a_transaction_pooler(
    report_on: Reporting, any_pgbouncer: PgBouncer, database: str, postgres: Postgres, driver: str
) -> None:
    url = any_pgbouncer.url(database)
    report = report_on(f"{url}?pgbouncer=true", DATABASE_DRIVER=driver)

    assert unknown(report) == NEEDS_AN_EXTENSION
    assert (report["pooler"].value, report["pooler"].verdict) == ("pooler", "warn")
    assert report["pooler"].sql[0].startswith('ALTER ROLE "app" SET statement_timeout')
    # The limits of the report's own statements end with its transaction, on whatever connection the pooler gives next.
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
        query = "SELECT current_setting('statement_timeout'), current_setting('search_path')"
        assert client.execute(query).fetchall() == [("0", '"$user", public')]


def test_a_pooler_and_a_role_with_limits_of_its_own(
    report_on: Reporting, pgbouncer: PgBouncer, database: str, postgres: Postgres
) -> None:
    name = name_of(database)
    postgres.admin().execute(f"ALTER ROLE app IN DATABASE {name} SET statement_timeout = '27s'")
    report = report_on(f"{pgbouncer.url(database)}?pgbouncer=true")
    assert (report["pooler"].value, report["pooler"].verdict) == ("pooler", "ok")


def test_directly(report_on: Reporting, database: str) -> None:
    assert report_on(database)["pooler"].value == "direct"


def test_it_costs_a_round_trip_for_each_query_and_two_more(
    report_on: Reporting, database: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_ENV", "test")
    monkeypatch.setenv("DATABASE_URL", wire_proxy.url(database))
    reset_settings()
    assert db.fetch_value("SELECT 1") == 1
    asked: list[str] = []
    rows = Server.rows

    def counted(server: Server, sql: str) -> list[db.Row]:
        asked.append(sql)
        return rows(server, sql)

    monkeypatch.setattr(Server, "rows", counted)

    with wire_proxy.count() as count:
        assert make_report().error is None

    assert len(asked) >= len(NAMES) - 3
    assert count.flights == len(asked) + 2
    assert count.connections == 0


def test_nothing_is_left_behind(report_on: Reporting, database: str, postgres: Postgres, monkeypatch: Any) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    make_report()
    until(lambda: [row.state for row in sessions(postgres, database)] == ["idle"])
    assert db.fetch_value("SELECT current_setting('search_path')") == '"$user", public'
    assert db.fetch_value("SELECT current_setting('transaction_read_only')") == "off"


def test_a_connection_that_is_given(database: str, postgres: Postgres) -> None:
    from shared.db.drivers import connect
    from shared.db.url import DatabaseURL

    url = DatabaseURL.parse(database)
    connection = connect(url, "psycopg", connect_timeout=5)
    try:
        report = make_report(connection, url)
        assert report.error is None
        assert report["connection"].rows[0]["database"] == name_of(database)
        assert connection.fetch("SELECT 1 AS one") == [{"one": 1}]
    finally:
        connection.close()


def test_one_statement_that_takes_too_long_costs_only_its_check(
    report_on: Reporting, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(server: Server) -> Finding:
        server.rows("SELECT pg_sleep(10)")
        raise AssertionError

    def refused(server: Server) -> Finding:
        server.rows("SELECT * FROM pg_authid")
        raise AssertionError

    def defective(server: Server) -> Finding:
        raise KeyError("defect")

    monkeypatch.setattr(server, "_FACTS", server._FACTS.replace("'2000'", "'50'"))
    topics = {
        "odd": (Check("slow", "", "", slow), Check("refused", "", "", refused), Check("defective", "", "", defective))
    }
    monkeypatch.setattr("shared.health.report.TOPICS", {**topics, **TOPICS})

    report = report_on(database)

    assert "query_canceled" in report["slow"].summary
    assert "permission denied for table pg_authid" in report["refused"].summary
    assert report["refused"].sql == ('GRANT pg_monitor TO "app";',)
    assert "defective" in report["defective"].summary
    assert unknown(report) == {"slow", "refused", "defective", *NEEDS_AN_EXTENSION}


def test_a_connection_that_is_lost_in_the_middle(report_on: Reporting, database: str, wire_proxy: WireProxy) -> None:
    wire_proxy.on("client", b"pg_stat_ssl", do="rst")

    report = report_on(wire_proxy.url(database))

    assert [result.name for result in report.results] == NAMES
    assert report["connection"].verdict == "ok"
    assert report["tls"].verdict == report["checkpoints"].verdict == "unknown"
    assert "127.0.0.1" not in json.dumps(report.as_object())


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://app:canary@127.0.0.1:{port}/db", "connection_refused"),
        ("postgresql://app:canary@no-such-host.invalid/db?sslmode=require", "unknown_host"),
        ("nonsense", "configuration"),
    ],
)
def test_no_connection_at_all(report_on: Reporting, url: str, code: str) -> None:
    report = report_on(url.format(port=free_port()))

    assert report.status == report["connection"].verdict == "fail"
    assert isinstance(report.error, DatabaseUnavailable) or code == "configuration"
    assert code in report["connection"].summary or code == "configuration"
    shown = json.dumps(report.as_object())
    for secret in ("canary", "127.0.0.1", "no-such-host"):
        assert secret not in shown


def test_a_wrong_password_is_not_shown(report_on: Reporting, postgres: Postgres) -> None:
    report = report_on(f"postgresql://app:canary@127.0.0.1:{postgres.port}/postgres")
    assert "invalid_password" in report["connection"].summary
    assert "canary" not in repr(report.as_object())


def test_names_of_a_user_s_own_are_quoted(
    report_on: Reporting, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    role, name = 'o"dd', "d''b"
    admin = postgres.admin()
    admin.execute(f"CREATE ROLE {identifier(role)} LOGIN PASSWORD 'x'")
    admin.execute(f"CREATE DATABASE {identifier(name)} OWNER {identifier(role)}")
    try:
        url = f"postgresql://o%22dd:x@127.0.0.1:{postgres.port}/d%27%27b"
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute('CREATE TABLE "T"";" (n int) WITH (autovacuum_enabled = off)')
        report = report_on(url)
        assert unknown(report) == NEEDS_AN_EXTENSION
        assert report["autovacuum"].sql == ('ALTER TABLE public."T"";" RESET (autovacuum_enabled);',)
        assert 'GRANT pg_monitor TO "o""dd";' in report["connections"].sql
        assert APP_PASSWORD not in json.dumps(report.as_object())
    finally:
        admin.execute(f"DROP DATABASE {identifier(name)} WITH (FORCE)")
        admin.execute(f"DROP ROLE {identifier(role)}")


def test_the_worst_verdict_counts_and_what_is_unknown_does_not() -> None:
    assert worst(["ok", "unknown", "ok"]) == "ok"
    assert worst(["ok", "fail", "warn", "unknown"]) == "fail"
    assert worst(["unknown"]) == worst([]) == "unknown"


def test_thresholds_in_both_directions() -> None:
    rising, falling = Threshold(5, 10, ""), Threshold(90, 50, "", falling=True)
    assert [rising.verdict(value) for value in (4.9, 5, 10, None)] == ["ok", "warn", "fail", "ok"]
    assert [falling.verdict(value) for value in (90.1, 90, 50)] == ["ok", "warn", "fail"]

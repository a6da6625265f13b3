"""`db doctor`: each step against real servers, and the step that is named where something is wrong."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from ops import cli
from ops.doctor import budget, examine, session
from ops.doctor.step import Step
from shared.db.drivers import connect
from shared.db.schema_head import REVISION
from shared.db.url import DatabaseURL
from shared.settings import Settings, reset_settings
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.tls import TLSPostgres


def look(url: str, **environ: str) -> dict[str, Step]:
    settings = Settings.read({"APP_ENV": "test", "DATABASE_URL": url, **environ})
    return {step.name: step for step in examine(settings, timeout=2)}


def db(*arguments: str) -> tuple[int, str]:
    reset_settings()
    result = CliRunner().invoke(cli.cli, arguments)
    return result.exit_code, result.stdout


def test_a_good_server_passes_every_step(migrated_database: str) -> None:
    steps = look(migrated_database)

    assert list(steps) == [
        "Connection string", "DNS", "TCP", "TLS", "Log in", "Server", "Latency", "Pooler", "Session state",
        "Limits in force", "Rights", "Clock", "Leaks", "Direct URL", "Schema", "Connection budget", "Tools",
    ]  # fmt: skip
    assert {name for name, step in steps.items() if step.verdict != "ok"} <= {"Tools"}
    assert "the server itself answers" in steps["Pooler"].found
    assert "last as long as the connection" in steps["Session state"].found
    assert "lock_timeout = 10s" in steps["Limits in force"].found
    assert REVISION in steps["Schema"].found


def test_a_pooler_is_found_by_what_it_does(migrated_database: str, any_pgbouncer: PgBouncer) -> None:
    steps = look(any_pgbouncer.url(migrated_database))

    assert steps["Pooler"].verdict == "warn"
    assert "pgbouncer=true" in steps["Pooler"].solutions[0]
    assert steps["Session state"].found.startswith("Lost between statements")
    assert any('ALTER ROLE "app" SET lock_timeout' in solution for solution in steps["Limits in force"].solutions)
    assert steps["Direct URL"].verdict == "warn"


def test_the_direct_url_is_compared_with_the_pooled_one(
    migrated_database: str, database: str, pgbouncer: PgBouncer
) -> None:
    pooled = f"{pgbouncer.url(migrated_database)}?pgbouncer=true"

    assert look(pooled, DIRECT_URL=migrated_database)["Direct URL"].verdict == "ok"
    other = look(pooled, DIRECT_URL=database)["Direct URL"]
    assert (other.verdict, "another database" in other.found) == ("fail", True)
    assert "a pooler too" in look(pooled, DIRECT_URL=pgbouncer.url(migrated_database))["Direct URL"].found


def test_no_mark_is_left_in_the_session_of_a_pooler(migrated_database: str, any_pgbouncer: PgBouncer) -> None:
    look(any_pgbouncer.url(migrated_database))

    with psycopg.connect(any_pgbouncer.url(migrated_database), autocommit=True, prepare_threshold=None) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'").fetchone()
    assert row == (0,)


def test_the_certificate_is_looked_at(tls_postgres: TLSPostgres) -> None:
    url = DatabaseURL.parse(tls_postgres.postgres.url("postgres"))
    ca = str(tls_postgres.certificates.ca)

    checked = look(url.with_params(sslmode="verify-full", sslrootcert=ca).render(password=True))["TLS"]
    assert checked.verdict == "ok"
    assert "authority and name are checked" in checked.found
    assert "localhost" in checked.found
    assert "not known here" in look(url.with_params(sslmode="require").render(password=True))["TLS"].found

    tls_postgres.show(tls_postgres.certificates.expired)
    expired = look(url.with_params(sslmode="require").render(password=True))["TLS"]
    assert (expired.verdict, "has expired" in expired.found) == ("warn", True)
    refused = look(url.with_params(sslmode="verify-full", sslrootcert=ca).render(password=True))
    assert list(refused)[-1] == "TLS"
    assert refused["TLS"].code == "certificate_expired"


@pytest.mark.parametrize(
    ("url", "step", "code", "exit_code"),
    [
        ("postgresql://u:p/w@h/x", "Connection string", "configuration", 3),
        ("postgresql://u:p@nowhere.invalid/x", "DNS", "unknown_host", 4),
        ("postgresql://u:p@127.0.0.1:1/x", "TCP", "connection_refused", 4),
        ("postgresql:///x?host=/nowhere", "Socket", "unix_socket_missing", 4),
    ],
)
def test_the_first_step_that_fails_is_named(url: str, step: str, code: str, exit_code: int) -> None:
    ended, printed = db("doctor", "--json", url)

    found = json.loads(printed)
    assert ended == exit_code
    assert found["status"] == "fail"
    assert (found["steps"][-1]["name"], found["steps"][-1]["code"]) == (step, code)
    assert found["steps"][-1]["solutions"]


def test_a_wrong_password_is_never_shown(postgres: Postgres) -> None:
    url = replace(DatabaseURL.parse(postgres.url("postgres")), password="canary-of-the-doctor")

    ended, printed = db("doctor", url.render(password=True))

    assert ended == 4
    assert "(invalid_password)" in printed
    assert "canary-of-the-doctor" not in printed


def test_a_schema_that_is_behind_is_said_to_be(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '20200101000000'")

    step = look(migrated_database)["Schema"]

    assert (step.verdict, step.solutions) == ("warn", ("db migrate",))
    assert "At 20200101000000, behind this code" in step.found


def test_what_the_role_may_not_do_is_told_with_its_grant(postgres: Postgres) -> None:
    steps = look(postgres.url("postgres"))

    assert 'GRANT CREATE ON SCHEMA "public" TO "app";' in steps["Rights"].solutions[0]
    assert "sees its own sessions only" in steps["Rights"].found


def test_a_read_only_database_is_warned_of(database: str) -> None:
    url = DatabaseURL.parse(database).with_params(options="-c default_transaction_read_only=on")

    step = look(url.render(password=True))["Server"]

    assert (step.verdict, "read-only" in step.found) == ("warn", True)


def test_a_connection_that_was_forgotten_is_found(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(database, application_name="forgetful") as connection:
        connection.execute("SELECT 1")
        assert look(database)["Leaks"].verdict == "ok"

        monkeypatch.setattr(session, "HELD_OPEN", 0.0)
        step = look(database)["Leaks"]

    assert step.verdict == "warn"
    assert "1 of forgetful idle in transaction" in step.found


def test_a_database_that_is_not_migrated_is_told_how(database: str) -> None:
    assert look(database)["Schema"].solutions == ("db migrate",)


# -- the budget -------------------------------------------------------------------------------------


@pytest.fixture
def deployment(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder with these reserved concurrencies in its serverless.yml."""

    def write(*reserved: int | str | None) -> Path:
        functions = "".join(
            f"  f{n}:\n    handler: x\n    events: [schedule]\n" + (f"    reservedConcurrency: {r}\n" if r else "")
            for n, r in enumerate(reserved)
        )
        defaults = "params: {default: {reservedConcurrency: 4}}\n"
        (tmp_path / "serverless.yml").write_text(f"{defaults}functions:\n{functions}")
        (tmp_path / "vercel.json").write_text('{"functions": {"app.py": {}}}')
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("reserved", "verdict"),
    [
        ((3, 3), "ok"),
        ((4, 3), "fail"),
        (("${param:reservedConcurrency, null}", 3), "fail"),
        ((None, 3), "ok"),
        ((100, None), "ok"),
    ],
)
def test_instances_times_pool_must_fit_into_seven_tenths_of_the_slots(
    deployment: Callable[..., Path], database: str, reserved: tuple[int | str | None, ...], verdict: str
) -> None:
    """PostgreSQL's 100 slots less its 3 reserved ones, of which 70 % are 67: six pools of ten."""
    settings = Settings.read({"APP_ENV": "test", "DATABASE_URL": database})
    with closing(connect(settings.database_url, "psycopg", connect_timeout=5)) as connection:
        step = budget.step("Connection budget", connection, settings, pooled=False, root=deployment(*reserved))
        pooled = budget.step("Connection budget", connection, settings, pooled=True, root=deployment(*reserved))

    assert step.verdict == verdict
    assert pooled.verdict == "ok"
    if verdict == "fail":
        assert "serverless.yml allows 7 instances, 70 connections" in step.found
        assert any("DATABASE_POOL_MAX=9" in solution for solution in step.solutions)


# -- the command line -------------------------------------------------------------------------------


def test_a_pasted_error_is_explained() -> None:
    ended, printed = db("doctor", "--error", "FATAL: sorry, too many clients already")

    assert ended == 0
    assert "(too_many_connections)" in printed
    assert "DATABASE_POOL_MAX" in printed


def test_a_pasted_error_with_a_url_in_it_hides_the_password() -> None:
    _, printed = db("doctor", "--json", "--error", f"cannot connect to postgresql://u:{APP_PASSWORD}@h/d (08006)")

    assert json.loads(printed)["sqlstate"] == "08006"
    assert APP_PASSWORD not in printed


def test_without_a_url_it_examines_what_commands_use(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_database)
    monkeypatch.setenv("APP_ENV", "test")

    ended, printed = db("doctor")

    assert ended == 0
    assert printed.count("\n✓ ") >= 12
    assert APP_PASSWORD not in printed

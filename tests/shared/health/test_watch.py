"""The periodic check: one look a minute whoever asks, samples, what it ends, and whom it tells of what."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from typer.testing import CliRunner

from ops import cli
from shared import db
from shared.health import schedule
from shared.health.watch import RETENTION, watch
from shared.settings import reset_settings
from tests.servers.pgbouncer import PgBouncer
from tests.servers.process import free_port


class Webhook:
    """A server that takes what is posted, or refuses it."""

    def __init__(self) -> None:
        self.status = 200
        self.posted: list[str] = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert list(body) == ["text"]
                if webhook.status == 200:
                    webhook.posted.append(body["text"])
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/canary-of-the-webhook"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with closing(Webhook()) as webhook:
        yield webhook


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        db.close_db()
        reset_settings()

    yield set_variables
    db.close_db()


@pytest.fixture
def url(migrated_database: str, use: Callable[..., None], webhook: Webhook) -> str:
    use(DATABASE_URL=migrated_database, APP_ENV="test", ALERT_WEBHOOK_URL=webhook.url)
    return migrated_database


def run_sql(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def age_samples(url: str) -> None:
    """Let a minute pass."""
    run_sql(url, "UPDATE health_samples SET taken_at = taken_at - interval '1 minute'")


def trouble(url: str) -> None:
    run_sql(url, "CREATE SEQUENCE counting MAXVALUE 10")
    run_sql(url, "SELECT setval('counting', 10)")


def test_a_look_keeps_a_sample(url: str) -> None:
    done = watch()

    assert done.report is not None
    (row,) = run_sql(url, "SELECT status, verdicts, numbers, told FROM health_samples")
    status, verdicts, numbers, told = row
    assert (status, told) == (done.report.status, True)
    assert isinstance(verdicts, dict)
    assert isinstance(numbers, dict)
    assert set(verdicts) == {result.name for result in done.report.results}
    assert numbers["connections"] == done.report["connections"].value


def test_of_many_that_look_at_once_one_looks(url: str) -> None:
    with ThreadPoolExecutor(4) as executor:
        done = [future.result() for future in [executor.submit(watch) for _ in range(4)]]

    assert [one.report is None for one in done].count(False) in (1, 2)  # two where a minute ended meanwhile
    assert len(run_sql(url, "SELECT 1 FROM health_samples")) in (1, 2)


def test_people_are_told_of_changes_only_and_once(url: str, webhook: Webhook) -> None:
    watch()
    first = len(webhook.posted)
    trouble(url)
    age_samples(url)

    assert any("equence" in change and "ok -> fail" in change for change in watch().changes)
    assert len(webhook.posted) == first + 1
    assert webhook.posted[-1].startswith("Database (test): fail\n")

    age_samples(url)
    assert watch().changes == ()
    assert len(webhook.posted) == first + 1

    run_sql(url, "DROP SEQUENCE counting")
    age_samples(url)
    assert any("fail -> ok" in change for change in watch().changes)
    assert len(webhook.posted) == first + 2


def test_what_a_webhook_did_not_take_is_told_again(
    url: str, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    watch()
    before = list(webhook.posted)
    trouble(url)
    webhook.status = 500
    age_samples(url)

    assert not watch().told
    assert webhook.posted == before
    assert "the webhook did not take the alert: 500" in caplog.text
    assert "canary-of-the-webhook" not in caplog.text

    webhook.status = 200
    age_samples(url)
    assert watch().told
    assert any("ok -> fail" in text for text in webhook.posted)


def test_a_look_that_was_killed_is_followed_by_the_next(url: str) -> None:
    run_sql(url, "INSERT INTO health_samples (taken_at) VALUES (date_trunc('minute', now()))")
    assert watch().report is None

    age_samples(url)
    assert watch().report is not None


def test_a_database_that_is_down_is_told_once(use: Callable[..., None], webhook: Webhook) -> None:
    use(DATABASE_URL=f"postgresql://u:canary@127.0.0.1:{free_port()}/d", APP_ENV="test", ALERT_WEBHOOK_URL=webhook.url)

    assert any("connection_refused" in change for change in watch().changes)
    assert watch().changes == ()

    assert len(webhook.posted) == 1
    assert "canary" not in webhook.posted[0]


def test_a_database_that_is_not_migrated_is_looked_at_all_the_same(
    database: str, use: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    use(DATABASE_URL=database, APP_ENV="test")

    assert watch().report is not None
    assert "no sample can be kept: undefined_table" in caplog.text


def test_old_samples_are_forgotten(url: str) -> None:
    run_sql(url, f"INSERT INTO health_samples (taken_at) SELECT now() - interval '{RETENTION + 1} days'")

    watch()

    assert len(run_sql(url, "SELECT 1 FROM health_samples")) == 1


def test_sessions_are_ended_only_where_that_is_allowed(url: str, use: Callable[..., None]) -> None:
    with psycopg.connect(url, application_name="forgetful") as idle:
        idle.execute("SELECT 1")
        assert watch().ended == ()
        run_sql(url, "SELECT 1")
        age_samples(url)

        use(WATCH_END_IDLE_IN_TRANSACTION="1")
        run_sql(url, "SELECT pg_sleep(1.1)")
        assert any("forgetful: idle in transaction, ended" in line for line in watch().ended)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")


def test_a_dump_and_a_migration_are_spared(url: str, use: Callable[..., None]) -> None:
    use(WATCH_END_IDLE_IN_TRANSACTION="1", WATCH_CANCEL_QUERIES="1")
    with (
        psycopg.connect(url, application_name="pg_dump") as dump,
        psycopg.connect(url, application_name="db migrate on somewhere") as migration,
    ):
        dump.execute("SELECT 1")
        migration.execute("SELECT 1")
        run_sql(url, "SELECT pg_sleep(1.1)")

        assert watch().ended == ()
        dump.execute("SELECT 1")
        migration.execute("SELECT 1")


def test_a_runaway_query_is_cancelled(url: str, use: Callable[..., None]) -> None:
    use(WATCH_CANCEL_QUERIES="1")
    with (
        psycopg.connect(url, application_name="runaway", autocommit=True) as connection,
        ThreadPoolExecutor(1) as executor,
    ):
        running = executor.submit(connection.execute, "SELECT pg_sleep(30)")
        run_sql(url, "SELECT pg_sleep(1.2)")

        assert any("runaway: a statement, cancelled" in line for line in watch().ended)
        with pytest.raises(psycopg.errors.QueryCanceled):
            running.result()


def test_it_works_behind_a_pooler(url: str, use: Callable[..., None], pgbouncer: PgBouncer) -> None:
    use(DATABASE_URL=f"{pgbouncer.url(url)}?pgbouncer=true")

    assert watch().report is not None
    assert watch().report is None


# -- where it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "runs"),
    [
        ({"APP_ENV": "production"}, True),
        ({"APP_ENV": "production", "WATCH_INTERVAL": "0"}, False),
        ({"APP_ENV": "production", "VERCEL": "1"}, False),
        ({"APP_ENV": "production", "AWS_LAMBDA_FUNCTION_NAME": "f"}, False),
        ({"APP_ENV": "development"}, False),
        ({"APP_ENV": "nonsense"}, False),
    ],
)
def test_it_is_scheduled_in_a_long_lived_production_server_only(
    use: Callable[..., None], environ: dict[str, str], runs: bool
) -> None:
    use(**environ)
    before = set(threading.enumerate())

    with schedule.looking_now_and_then():
        assert [thread.name for thread in set(threading.enumerate()) - before] == (["watch"] if runs else [])


def test_the_schedule_looks(url: str, use: Callable[..., None]) -> None:
    use(APP_ENV="production", WATCH_INTERVAL="0.05", ADMIN_INITIAL_PASSWORD="canary-of-the-admin")
    with psycopg.connect(url, autocommit=True) as connection, schedule.looking_now_and_then():
        connection.execute(
            "DO $$ BEGIN FOR n IN 1..200 LOOP"
            " PERFORM FROM health_samples WHERE status IS NOT NULL; IF FOUND THEN RETURN; END IF;"
            " COMMIT; PERFORM pg_sleep(0.05); END LOOP; RAISE 'nobody looked'; END $$"
        )


# -- the command ------------------------------------------------------------------------------------


def test_the_command_looks_once(url: str) -> None:
    """The tests' server runs without fsync, which is a failure of its own."""
    first = CliRunner().invoke(cli.cli, ["watch", "--once", "--json"])
    assert (json.loads(first.stdout)["status"], first.exit_code) == ("fail", 5)

    age_samples(url)
    run_sql(url, "INSERT INTO health_samples (taken_at) VALUES (date_trunc('minute', now()))")
    second = CliRunner().invoke(cli.cli, ["watch", "--once"])
    assert ("another instance has looked" in second.stdout, second.exit_code) == (True, 0)


def test_an_alert_can_be_tried(url: str, webhook: Webhook) -> None:
    assert CliRunner().invoke(cli.cli, ["watch", "--test-alert"]).stdout == "Sent.\n"
    assert webhook.posted == ["Database (test): this is a test of its alerts"]

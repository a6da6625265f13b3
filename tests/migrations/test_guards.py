"""Where migrations refuse to run, and the lock that lets one runner at a time through."""

import os
import threading
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from migrations import lock, runner
from migrations.connection import check_version, connect
from shared.errors import DatabaseUnavailable, LockTimeout, MigrationError, Refused
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project
from tests.servers.postgres import APP, Postgres


@pytest.mark.parametrize(
    ("number", "shown"), [(150008, "15.8"), (130014, "13.14"), (90624, "9.6.24"), (100023, "10.23")]
)
def test_an_old_server_is_refused_with_its_version(number: int, shown: str) -> None:
    with pytest.raises(Refused, match=rf"The server is PostgreSQL {shown}; these migrations need 16 or newer"):
        check_version(number)


@pytest.mark.parametrize("number", [160000, 170011, 190000])
def test_newer_servers_are_taken(number: int) -> None:
    check_version(number)


def test_every_connection_is_checked_for_its_version(any_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own number reaches the check: with a higher minimum the newest server is refused too."""
    monkeypatch.setattr("migrations.connection.MINIMUM_MAJOR_VERSION", 99)
    major = catalog.rows(any_url, "SELECT split_part(current_setting('server_version'), '.', 1)")[0][0]

    for run in (runner.deploy, runner.dry_run, runner.downgrade):
        with pytest.raises(Refused, match=rf"The server is PostgreSQL {major}\.\d+; these migrations need 99"):
            run(report=lambda _: None)
    with pytest.raises(Refused):
        runner.status()


def test_a_standby_is_refused_and_can_be_asked_for_its_status(
    own_postgres: Postgres, use: Callable[..., None], said: list[str]
) -> None:
    own_postgres.create_database("app")
    use(DATABASE_URL=own_postgres.url("app"), APP_ENV="test")
    runner.deploy(report=said.append)
    own_postgres.server.stop()
    (own_postgres.server.data_dir / "standby.signal").touch()
    own_postgres.server.start()

    for run in (runner.deploy, runner.dry_run, runner.downgrade):
        with pytest.raises(Refused, match="The server is a standby"):
            run(report=said.append)
    assert runner.status().state == "equal"


def test_a_read_only_database_is_refused(url: str, postgres: Postgres, said: list[str]) -> None:
    name = sql.Identifier(urlsplit(url).path[1:])
    postgres.admin().execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))

    with pytest.raises(Refused, match="The database is read-only"):
        runner.deploy(report=said.append)


def test_a_user_who_may_not_create_tables_is_refused_with_the_grant(
    url: str, postgres: Postgres, said: list[str]
) -> None:
    admin = postgres.admin_url(urlsplit(url).path[1:])
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("ALTER SCHEMA public OWNER TO postgres")

    with pytest.raises(Refused, match=f"The user {APP} may not create tables in the schema public") as caught:
        runner.deploy(report=said.append)

    grant = caught.value.solutions[0].removeprefix("As its owner: ")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(grant.encode())
    runner.deploy(report=said.append)


def test_a_user_without_a_schema_is_refused(url: str, postgres: Postgres, said: list[str]) -> None:
    name = sql.Identifier(urlsplit(url).path[1:])
    postgres.admin().execute(sql.SQL("ALTER DATABASE {} SET search_path = nowhere").format(name))

    with pytest.raises(Refused, match="No schema of this user's search_path exists"):
        runner.deploy(report=said.append)


def test_a_missing_right_on_the_version_table_is_told(url: str, postgres: Postgres, said: list[str]) -> None:
    with psycopg.connect(postgres.admin_url(urlsplit(url).path[1:]), autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32))")

    with pytest.raises(MigrationError, match="permission denied for table alembic_version"):
        runner.deploy(report=said.append)


def test_no_connection_is_told_without_the_password(use: Callable[..., None], said: list[str]) -> None:
    use(DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/d", APP_ENV="test")

    with pytest.raises(DatabaseUnavailable, match=r"Cannot connect to postgresql://u:\*+@127\.0\.0\.1:1/d") as caught:
        runner.deploy(report=said.append)

    assert "make dev" in caught.value.solutions[0]
    assert caught.value.__cause__ is None
    assert "hunter2" not in repr(caught.value.__dict__) + str(caught.value)


def test_a_wrong_password_is_told_without_it(url: str, use: Callable[..., None], said: list[str]) -> None:
    use(DATABASE_URL=url.replace("p%25", "wrong-hunter2"))

    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as caught:
        runner.deploy(report=said.append)

    assert "hunter2" not in caught.value.message


# -- the session ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "deployment"),
    [
        ({}, ""),
        ({"VERCEL_DEPLOYMENT_ID": "dpl_1", "VERCEL_URL": "x.vercel.app"}, " (dpl_1)"),
        ({"VERCEL_URL": "x.vercel.app"}, " (x.vercel.app)"),
        ({"GITHUB_RUN_ID": "7"}, " (GitHub run 7)"),
        ({"APP_COMMIT": "0123456789abcdef"}, " (0123456789ab)"),
        ({"VERCEL_URL": "größe" * 20}, " (gr??e"),
    ],
)
def test_it_says_who_migrates_from_where_and_for_which_deployment(
    url: str, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], deployment: str
) -> None:
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    use(**variables)
    with connect() as connection:
        (name,) = connection.execute("SHOW application_name").fetchone() or ("",)

    assert str(name).startswith(f"db migrate on {os.uname().nodename}{deployment}"[:63])
    assert len(str(name)) <= 63


def test_what_the_url_asks_for_requests_does_not_end_it(url: str, use: Callable[..., None], folder: Folder) -> None:
    limits = ("statement_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
    use(DATABASE_URL=f"{url}?options={quote(' '.join(f'-c {limit}=150' for limit in limits))}")
    folder.add("20260101000000_slow", "SELECT pg_sleep(0.4);")

    runner.deploy(report=lambda _: None, directory=folder.path)

    assert catalog.revision(url) == "20260101000000"


def test_what_others_set_for_the_role_does_not_end_it(any_url: str, any_postgres: Postgres, folder: Folder) -> None:
    """On 16, where transaction_timeout is not known, as on 17, which would apply it."""
    name = sql.Identifier(urlsplit(any_url).path[1:])
    timeouts = ["statement_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"]
    for setting in [*timeouts, *(["transaction_timeout"] if any_postgres.major >= 17 else [])]:
        any_postgres.admin().execute(
            sql.SQL("ALTER DATABASE {} SET {} = '150ms'").format(name, sql.Identifier(setting))
        )
    folder.add("20260101000000_slow", "SELECT pg_sleep(0.4);")

    runner.deploy(report=lambda _: None, directory=folder.path)

    assert catalog.revision(any_url) == "20260101000000"


# -- the lock ---------------------------------------------------------------------------------------


def test_the_holder_is_named_when_waiting_has_lasted_long_enough(url: str, said: list[str]) -> None:
    with connect() as holder, lock.hold(holder, report=said.append):
        pid = holder.info.backend_pid
        with pytest.raises(LockTimeout) as caught:
            runner.deploy(report=said.append, lock_wait=0.3)

    assert f"Another migration is running: pid {pid}, connected since 2" in caught.value.message
    assert f"application db migrate on {os.uname().nodename}"[:63] in caught.value.message
    assert "from 127.0.0.1. Waited 0.3 s" in caught.value.message
    assert f"SELECT pg_terminate_backend({pid});" in caught.value.solutions[-1]
    assert said == [f"Waiting for another migration: {caught.value.message.split(': ', 1)[1].split('. Waited')[0]}."]
    assert catalog.tables(url) == []


def test_the_advice_to_end_the_holder_works(url: str, said: list[str]) -> None:
    with connect() as holder:
        # Not `hold`, which would notice that its session is gone.
        holder.execute("SELECT pg_advisory_lock(%s)", [lock.KEY])
        with pytest.raises(LockTimeout) as caught:
            runner.deploy(report=said.append, lock_wait=0)
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(caught.value.solutions[-1].partition(": ")[2].encode())

        runner.deploy(report=said.append, lock_wait=5)


def test_a_waiter_goes_on_when_the_holder_ends(url: str, said: list[str]) -> None:
    waiting = threading.Event()

    def report(line: str) -> None:
        said.append(line)
        if line.startswith("Waiting"):
            waiting.set()

    with connect() as holder:
        with lock.hold(holder, report=said.append):
            deploy = threading.Thread(target=lambda: runner.deploy(report=report, lock_wait=20))
            deploy.start()
            assert waiting.wait(20)
            # It waits outside of any transaction, and without a snapshot that would stop others.
            assert catalog.rows(
                url,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND (state LIKE 'idle in%' OR backend_xmin IS NOT NULL)",
            ) == [(0,)]
        deploy.join(30)

    assert runner.status().state == "equal"


def test_databases_do_not_wait_for_each_other(
    url: str, postgres: Postgres, use: Callable[..., None], said: list[str]
) -> None:
    with (
        connect() as holder,
        lock.hold(holder, report=said.append),
        postgres.database() as other,
    ):
        use(DATABASE_URL=postgres.url(other))
        runner.deploy(report=said.append, lock_wait=0)


def test_the_lock_s_answer_at_the_end_is_checked(url: str, said: list[str]) -> None:
    """Behind a pooler that changes the session, unlocking says false: somebody else may have had the lock too."""
    with (
        connect() as connection,
        pytest.raises(MigrationError, match="The migration lock was lost"),
        lock.hold(connection, report=said.append),
    ):
        connection.execute("SELECT pg_advisory_unlock_all()")


def test_what_must_not_run_beside_a_migration_takes_the_same_lock(url: str, said: list[str]) -> None:
    with (
        lock.taken("db backup", report=said.append),
        pytest.raises(LockTimeout, match=rf"application db backup on {os.uname().nodename}"),
    ):
        runner.deploy(report=said.append, lock_wait=0)

    runner.deploy(report=said.append, lock_wait=5)


def test_the_lock_is_free_after_success_and_after_failure(url: str, folder: Folder, said: list[str]) -> None:
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    runner.deploy(report=said.append, directory=folder.path)
    assert catalog.rows(url, held) == [(0,)]

    folder.add("20260102000000_b", "SELECT 1/0;")
    with pytest.raises(MigrationError):
        runner.deploy(report=said.append, directory=folder.path)

    # Its session was closed; the server takes a moment to end it.
    with connect() as connection, lock.hold(connection, wait=5, report=said.append):
        pass


def test_a_stock_command_passes_the_same_guards(url: str, project: Project, postgres: Postgres) -> None:
    """`alembic upgrade head`, run as a person would, is refused where ours is."""
    refused = project.run("alembic", "upgrade", "head", MIGRATION_DRYRUN="true")
    assert refused.returncode != 0
    assert "MIGRATION_DRYRUN is true" in refused.stderr + refused.stdout

    refused = project.run("alembic", "upgrade", "head", MIGRATION_REQUIRE_FORCE="true", APP_ENV="production")
    assert "MIGRATION_REQUIRE_FORCE is true" in refused.stderr + refused.stdout

    with psycopg.connect(postgres.admin_url(urlsplit(url).path[1:]), autocommit=True) as connection:
        connection.execute("ALTER SCHEMA public OWNER TO postgres")
    refused = project.run("alembic", "upgrade", "head")
    assert f"GRANT CREATE ON SCHEMA public TO {APP};" in refused.stderr + refused.stdout

    assert "Traceback" not in refused.stderr
    assert catalog.tables(url) == []


def test_a_stock_command_waits_for_the_lock(url: str, project: Project, said: list[str]) -> None:
    with connect() as holder:
        with lock.hold(holder, report=said.append):
            process = project.start("alembic", "upgrade", "head")
            assert process.stdout is not None
            output = ""
            while "Waiting for another migration" not in output:
                line = process.stdout.readline()
                assert line, output
                output += line
            assert catalog.tables(url) == []
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert runner.status().state == "equal"

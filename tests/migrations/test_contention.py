"""Tables that others hold: the site goes on, who blocks is named, and the migration succeeds when it can."""

import os
import signal
import subprocess
from collections.abc import Callable

import psycopg
import pytest

from migrations import contention, runner
from migrations.connection import connect
from migrations.contention import Contention
from shared.errors import LockTimeout, MigrationError
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project
from tests.migrations.others import Run, is_waiting, looking, transaction, until, until_line, upgrade
from tests.servers import binaries
from tests.servers.postgres import Postgres


@pytest.fixture
def table(url: str, use: Callable[..., None], folder: Folder) -> str:
    """Make a table with a row, and a migration that wants it for itself; gives the URL."""
    use(MIGRATION_LOCK_TIMEOUT="0.2")
    catalog.rows(url, "CREATE TABLE t (x int)")
    catalog.rows(url, "INSERT INTO t VALUES (1)")
    folder.add("20260101000000_alter", "CREATE TABLE before (x int);\nALTER TABLE t ADD COLUMN y int;")
    return url


def column(url: str) -> bool:
    return bool(catalog.rows(url, "SELECT 1 FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'y'"))


def test_readers_go_on_while_a_migration_cannot_have_its_table(table: str, folder: Folder, said: list[str]) -> None:
    """Whoever comes behind the waiting ALTER TABLE is stopped by it, until it steps back."""
    with looking(table) as connection:
        connection.execute("SET statement_timeout = '10s'")
        with transaction(table, "SELECT x + 41 AS report FROM t WHERE 'a@b.c' <> ''", application_name="report") as who:
            run = Run(lambda: runner.deploy(report=said.append, directory=folder.path))
            for _ in range(3):
                until(lambda: is_waiting(connection), "the migration's turn to wait")
                # It ends although the transaction that blocks the migration goes on.
                assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
                until(lambda: not is_waiting(connection), "the migration's stepping back")
                assert catalog.tables(table) == ["t"]  # it keeps nothing meanwhile
            assert run.is_running
            pid = who.info.backend_pid
        result = run.end()

    assert column(table)
    assert [m.name for m in result.applied] == ["20260101000000_alter.sql"]
    (waiting,) = (line for line in said if line.startswith("Waiting for"))
    assert waiting == (
        f"Waiting for a lock held by pid {pid} (report, idle in transaction, its transaction began 0 s ago, "
        "query: SELECT x + 41 AS report FROM t WHERE '…' <> '…'). "
        f"If it hangs, this ends it: SELECT pg_terminate_backend({pid});"
    )
    tries = [line for line in said if line.startswith("20260101000000_alter.sql failed in line 5: canceling")]
    assert len(tries) >= 3
    assert all(f"Blocked by pid {pid} (report, " in line for line in tries)


def test_the_pause_ends_when_those_who_blocked_are_gone(
    table: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contention, "FIRST_PAUSE", 3600.0)
    with connect() as guard, transaction(table, "SELECT FROM t") as who:
        waiting = Contention(guard, said.append, wait=3600, lock_timeout=0.0, interval=0.01)
        run = Run(lambda: waiting.pause(MigrationError("Failed."), who.info.backend_pid))
        until(lambda: said, "the pause")
        assert run.is_running
        who.execute("SELECT FROM t")  # the same transaction goes on
        assert run.is_running
        who.commit()
        who.execute("SELECT FROM t")  # another transaction of the same session
        run.end()


def test_there_is_an_end_to_waiting(table: str, folder: Folder, said: list[str]) -> None:
    with transaction(table, "SELECT FROM t", application_name="report") as who:
        pid = who.info.backend_pid
        with pytest.raises(LockTimeout) as caught:
            upgrade(folder.path, said.append, wait=1)

    assert caught.value.exit_code == 7
    assert caught.value.message.startswith("20260101000000_alter.sql failed in line 5. It was rolled back")
    assert f"Blocked by pid {pid} (report, " in caught.value.message
    assert "Waited 1 s in all" in caught.value.message
    assert f"If it hangs, this ends it: SELECT pg_terminate_backend({pid});" in caught.value.solutions
    assert catalog.tables(table) == ["t"]


def test_who_queued_before_is_named_too(table: str, folder: Folder, said: list[str]) -> None:
    """A session that waits for the table itself is ahead of us in the queue."""
    with (
        looking(table) as connection,
        transaction(table, "SELECT FROM t") as reader,
        psycopg.connect(table) as queued,
    ):
        pids = {reader.info.backend_pid, queued.info.backend_pid}
        behind = Run(lambda: queued.execute("LOCK TABLE t"))
        until(lambda: is_waiting(connection), "the other session's waiting")
        with pytest.raises(LockTimeout) as caught:
            upgrade(folder.path, said.append, wait=0.1)
        reader.commit()
        behind.end()

    assert all(f"pid {pid} (" in caught.value.message for pid in pids)


def test_a_session_of_another_user_is_named_as_far_as_the_server_tells(
    postgres: Postgres, table: str, folder: Folder, said: list[str]
) -> None:
    admin = postgres.admin_url(table.rpartition("/")[2])
    with (
        transaction(admin, "SELECT FROM t", application_name="its report") as who,
        pytest.raises(LockTimeout, match=rf"pid {who.info.backend_pid} \(its report, of another user\)"),
    ):
        upgrade(folder.path, said.append, wait=0.1)


def test_a_prepared_transaction_is_named_as_such(
    own_postgres: Postgres, use: Callable[..., None], folder: Folder, said: list[str]
) -> None:
    """It has no session, and stays until somebody ends it."""
    own_postgres.admin().execute("ALTER SYSTEM SET max_prepared_transactions = 2")
    own_postgres.server.stop("fast")
    own_postgres.server.start(die_with_parent=True)
    with own_postgres.database() as name:
        url = own_postgres.url(name)
        use(DATABASE_URL=url, APP_ENV="test", MIGRATION_LOCK_TIMEOUT="0.2")
        catalog.rows(url, "CREATE TABLE t (x int)")
        folder.add("20260101000000_alter", "ALTER TABLE t ADD COLUMN y int;")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("BEGIN; LOCK TABLE t IN ROW SHARE MODE; PREPARE TRANSACTION 'forgotten'")

            with pytest.raises(LockTimeout, match="Blocked by a prepared transaction") as caught:
                upgrade(folder.path, said.append, wait=0.3)

            connection.execute("ROLLBACK PREPARED 'forgotten'")
        assert any("pg_prepared_xacts" in solution for solution in caught.value.solutions)


def test_row_locks_count_too(table: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_alter", "UPDATE t SET x = 2;", parent="none")
    with transaction(table, "UPDATE t SET x = 3") as who:
        run = Run(lambda: upgrade(folder.path, said.append))
        until(lambda: any("Nobody waits behind us" in line for line in said), "the first try's end")
        assert f"Blocked by pid {who.info.backend_pid} " in said[-1]
    run.end()

    assert catalog.rows(table, "SELECT x FROM t") == [(2,)]


def test_outside_a_transaction_only_the_statement_is_tried_again(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(
        "20260101000000_alter",
        "CREATE TABLE once (x int);\nALTER TABLE t ADD COLUMN y int;",
        header="-- transaction: none",
        parent="none",
    )
    with transaction(table, "SELECT FROM t"):
        run = Run(lambda: upgrade(folder.path, said.append))
        until(lambda: any("Nobody waits behind us" in line for line in said), "the first try's end")
        assert "once" in catalog.tables(table)
    run.end()

    assert column(table)
    assert not any("going on behind" in line for line in said)


def test_the_loser_of_a_deadlock_tries_again(
    postgres: Postgres, table: str, use: Callable[..., None], folder: Folder, said: list[str]
) -> None:
    use(MIGRATION_LOCK_TIMEOUT="10")
    name = table.rpartition("/")[2]
    postgres.admin().execute(f"ALTER DATABASE {name} SET deadlock_timeout = '50ms'".encode())
    catalog.rows(table, "CREATE TABLE over (x int)")
    folder.add(
        "20260101000000_alter",
        """
        LOCK TABLE t;
        DO $$ BEGIN
            WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = 't'::regclass AND NOT granted)
              AND NOT EXISTS (SELECT FROM over)
            LOOP PERFORM pg_sleep(0.01); END LOOP;
        END $$;
        ALTER TABLE over ADD COLUMN z int;
        """,
        parent="none",
    )
    # The other one never looks for deadlocks, so that it is the migration that finds this one and gives way.
    other = psycopg.connect(postgres.admin_url(name))
    with other, looking(table) as connection:
        other.execute("SET deadlock_timeout = '1h'")
        other.execute("INSERT INTO over VALUES (1)")
        run = Run(lambda: upgrade(folder.path, said.append))
        until(
            lambda: connection.execute("SELECT 1 FROM pg_locks WHERE relation = 't'::regclass AND granted").fetchone(),
            "the migration's first lock",
        )
        other.execute("LOCK TABLE t")
    run.end()

    assert sum("Nobody waits behind us" in line for line in said) == 1
    assert catalog.rows(table, "SELECT attname FROM pg_attribute WHERE attrelid = 'over'::regclass AND attname = 'z'")


def test_ctrl_c_while_it_waits_ends_in_order(url: str, project: Project) -> None:
    runner.deploy(report=lambda _: None)
    project.versions.add("20270101000000_alter", "CREATE TABLE half (x int);\nALTER TABLE plans ADD COLUMN y int;")
    with transaction(url, "SELECT FROM plans"):
        process = project.start("migrations", "deploy", MIGRATION_LOCK_TIMEOUT="0.1")
        until_line(process, "20270101000000_alter.sql failed in line 5: canceling statement due to lock timeout")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()

    assert process.returncode == 130
    assert "Interrupted in 20270101000000_alter.sql. It was rolled back" in output
    assert "Traceback" not in output
    assert "half" not in catalog.tables(url)


def test_stock_alembic_steps_back_too_and_leaves_it_at_that(url: str, project: Project) -> None:
    runner.deploy(report=lambda _: None)
    project.versions.add("20270101000000_alter", "ALTER TABLE plans ADD COLUMN y int;")
    with transaction(url, "SELECT FROM plans"):
        done = project.run("alembic", "upgrade", "head", MIGRATION_LOCK_TIMEOUT="0.1")

    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "20270101000000_alter.sql failed in line 4. It was rolled back" in output
    assert "Somebody else holds a lock on it." in output
    assert "Traceback" not in output


def test_a_backup_is_waited_for_and_not_queued_behind(
    postgres: Postgres, table: str, folder: Folder, said: list[str]
) -> None:
    """A real pg_dump, held up behind a lock of ours while it has locked the migration's table itself."""
    catalog.rows(table, "CREATE TABLE u (x int)")
    program = binaries.postgres(postgres.major)
    command = [str(program.directory / "pg_dump"), f"--dbname={table}"]
    with looking(table) as connection:
        with transaction(table, "LOCK TABLE u"):
            dump = subprocess.Popen(command, env={**os.environ, **program.environ}, stdout=subprocess.DEVNULL)
            holds = "SELECT 1 FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessShareLock' AND granted"
            until(lambda: connection.execute(holds).fetchone(), "the backup's lock")
            run = Run(lambda: upgrade(folder.path, said.append))
            until(lambda: said, "the first word")
            for _ in range(50):
                assert not is_waiting(connection)
            assert run.is_running
        assert dump.wait(20) == 0
        run.end()

    assert said[0].startswith("Waiting for a backup that is running: pid ")
    assert "(pg_dump, " in said[0]
    assert len(said) == 2  # it did not try before the backup was done
    assert column(table)


def test_a_backup_that_takes_too_long_is_named(table: str, folder: Folder, said: list[str]) -> None:
    with (
        transaction(table, "SELECT FROM t", application_name="pg_dump") as dump,
        pytest.raises(LockTimeout, match=rf"A backup is running: pid {dump.info.backend_pid} \(pg_dump, .*Waited 0.3"),
    ):
        upgrade(folder.path, said.append, wait=0.3)

    assert not column(table)

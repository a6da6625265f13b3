"""Migrations that fail, are interrupted or killed: the database stays as it was, and the message says all."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from migrations import files, runner
from shared.errors import DatabaseUnavailable, MigrationError
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project
from tests.servers.proxy import WireProxy

WAIT = 20.0  # seconds in which another process is expected to get somewhere


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that other processes do and nobody announces."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)


def sleepers(url: str) -> list[tuple[object, ...]]:
    """List the backends of this database that run pg_sleep."""
    return catalog.rows(
        url,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
        "AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
    )


@pytest.mark.parametrize(
    ("up", "line", "statement", "server", "sqlstate"),
    [
        # Found by the parser: the server tells the position, so the line is that of the wrong word.
        (
            "CREATE TABLE x (\n  a int,\n  b nonsense\n);",
            6,
            "CREATE TABLE x ( a int, b nonsense )",
            "nonsense",
            "42704",
        ),
        (
            "CREATE TABLE x (\n  a int,\n  b int int\n);",
            6,
            "CREATE TABLE x ( a int, b int int )",
            "syntax error",
            "42601",
        ),
        # Found when run: the line is where the statement begins.
        (
            "CREATE TABLE x (a int);\n\nINSERT INTO x\nSELECT 1/0;",
            6,
            "INSERT INTO x SELECT 1/0",
            "division by zero",
            "22012",
        ),
        ("CREATE TABLE x (a int CHECK (a > 0));\nINSERT INTO x VALUES (0);", 5, "INSERT", "check constraint", "23514"),
        (
            "CREATE TABLE x (a int);\nCOPY x FROM PROGRAM 'true';",
            5,
            "COPY x FROM PROGRAM 'true'",
            "permission",
            "42501",
        ),
    ],
)
def test_a_failing_file_is_rolled_back_and_named(
    url: str, folder: Folder, said: list[str], up: str, line: int, statement: str, server: str, sqlstate: str
) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    folder.add("20260102000000_b", "CREATE TABLE b (x int);")
    folder.add("20260103000000_c", up)

    with pytest.raises(MigrationError) as caught:
        runner.deploy(report=said.append, directory=folder.path)

    message = caught.value.message
    assert message.startswith(f"20260103000000_c.sql failed in line {line}. It was rolled back")
    assert f"Statement: {statement}" in message
    assert server in message.partition("Server:")[2]
    assert caught.value.sqlstate == sqlstate
    # Those before it stay; nothing of it does.
    assert catalog.tables(url) == ["a", "alembic_version", "b"]
    assert catalog.revision(url) == "20260102000000"
    assert any(text.startswith("Applied 20260102000000_b.sql") for text in said)


def test_the_message_does_not_quote_rows(url: str, folder: Folder, said: list[str]) -> None:
    folder.add(
        "20260101000000_a",
        "CREATE TABLE t (a int, b text);\nINSERT INTO t SELECT 1, md5('secret');\nALTER TABLE t ADD CHECK (a > 1);",
    )

    with pytest.raises(MigrationError) as caught:
        runner.deploy(report=said.append, directory=folder.path)

    assert "5ebe2294" not in str(caught.value)


def test_after_mending_the_file_the_next_run_goes_on(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    folder.add("20260102000000_b", "CREATE TABLE b (x int);\nSELECT 1/0;")
    with pytest.raises(MigrationError):
        runner.deploy(report=said.append, directory=folder.path)

    folder.add("20260102000000_b", "CREATE TABLE b (x int);", parent="20260101000000")
    result = runner.deploy(report=said.append, directory=folder.path, lock_wait=5)

    assert [m.name for m in result.applied] == ["20260102000000_b.sql"]


def test_a_constraint_that_fails_at_commit_is_named(url: str, folder: Folder, said: list[str]) -> None:
    folder.add(
        "20260101000000_a",
        "CREATE TABLE t (a int PRIMARY KEY, b int REFERENCES t DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO t VALUES (1, 2);",
    )

    with pytest.raises(MigrationError, match=r"20260101000000_a\.sql failed at COMMIT\. It was rolled back") as caught:
        runner.deploy(report=said.append, directory=folder.path)

    assert caught.value.sqlstate == "23503"
    assert catalog.tables(url) == []
    assert not any("Applied" in line for line in said)


def test_a_failing_downgrade_is_rolled_back(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);", "DROP TABLE a;\nDROP TABLE missing;")
    runner.deploy(report=said.append, directory=folder.path)

    with pytest.raises(MigrationError, match=r"20260101000000_a\.sql failed in line 9\. It was rolled back") as caught:
        runner.downgrade(report=said.append, directory=folder.path)

    assert caught.value.sqlstate == "42P01"
    assert catalog.tables(url) == ["a", "alembic_version"]
    assert catalog.revision(url) == "20260101000000"


def test_a_statement_that_needs_to_be_outside_a_transaction_says_how(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "CREATE TABLE t (x int);\nCREATE INDEX CONCURRENTLY i ON t (x);")

    with pytest.raises(MigrationError) as caught:
        runner.deploy(report=said.append, directory=folder.path)

    assert caught.value.sqlstate == "25001"
    assert "`-- transaction: none`" in caught.value.solutions[0]


def test_outside_a_transaction_what_ran_stays_and_the_message_says_so(
    url: str, folder: Folder, said: list[str]
) -> None:
    folder.add("20260101000000_a", "CREATE TABLE t (x int);\nINSERT INTO t VALUES (1), (1);")
    folder.add(
        "20260102000000_b",
        "CREATE TABLE u (x int);\nCREATE UNIQUE INDEX CONCURRENTLY i ON t (x);",
        header="-- transaction: none",
    )

    with pytest.raises(MigrationError, match="1 of its 2 statements have taken effect for good") as caught:
        runner.deploy(report=said.append, directory=folder.path)

    assert "in line 5." in caught.value.message
    assert caught.value.sqlstate == "23505"
    assert caught.value.solutions[0] == ("See which: SELECT x, count(*) FROM public.t GROUP BY x HAVING count(*) > 1;")
    assert catalog.revision(url) == "20260101000000"
    # An INVALID unique index would refuse the site's rows.
    assert catalog.rows(url, "SELECT 1 FROM pg_index WHERE indrelid = 't'::regclass") == []

    # As the message says: mend the cause, run again.
    catalog.rows(url, "TRUNCATE t")
    runner.deploy(report=said.append, directory=folder.path, lock_wait=5)
    assert catalog.rows(url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


@pytest.mark.parametrize("header", ["", "-- transaction: none"])
def test_a_cut_connection_is_named_with_the_statement(
    url: str, folder: Folder, said: list[str], header: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.add(
        "20260101000000_a", "CREATE TABLE t (x int);\nSELECT pg_terminate_backend(pg_backend_pid());", header=header
    )

    with pytest.raises(MigrationError, match=r"20260101000000_a\.sql failed in line 5\.") as raised:
        runner.deploy(report=said.append, directory=folder.path)

    assert raised.value.solutions[0].startswith("The file is not to blame: the connection was lost.")
    assert not caplog.records, "a terminal would show them"
    assert catalog.revision(url) is None


def test_a_full_disk_is_not_the_files_fault(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a", "DO $$ BEGIN RAISE 'no room' USING ERRCODE = 'disk_full'; END $$;")

    with pytest.raises(MigrationError) as raised:
        runner.deploy(report=said.append, directory=folder.path)

    assert raised.value.solutions[0].startswith("The file is not to blame: the server's disk is full.")


def test_a_session_ended_at_commit_leaves_open_whether_it_is_applied(url: str, folder: Folder, said: list[str]) -> None:
    folder.add(
        "20260101000000_a",
        "CREATE TABLE t (x int);\nCREATE FUNCTION e() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;\n"
        "CREATE CONSTRAINT TRIGGER e AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION e();\n"
        "INSERT INTO t VALUES (1);",
    )
    with pytest.raises(MigrationError, match="lost at COMMIT; it may be applied or not") as raised:
        runner.deploy(report=said.append, directory=folder.path)
    assert raised.value.sqlstate == "57P01"


def test_a_connection_that_is_cut_while_it_is_made_is_made_again(
    url: str, use: Callable[..., None], folder: Folder, said: list[str], wire_proxy: WireProxy
) -> None:
    """A build that fails because a database wakes up, or a gateway restarts, is a worse answer than a second try."""
    use(DATABASE_URL=wire_proxy.url(url), DATABASE_DISABLE_SSL="true")
    folder.add("20260101000000_first")
    for _ in range(2):
        wire_proxy.on("server", 1, do="fin")
    assert runner.deploy(report=said.append, directory=folder.path).applied


def test_a_password_that_is_refused_is_not_tried_again(
    url: str, use: Callable[..., None], folder: Folder, wire_proxy: WireProxy
) -> None:
    parts = urlsplit(wire_proxy.url(url))
    use(DATABASE_URL=parts._replace(netloc=f"app:wrong@{parts.netloc.rpartition('@')[2]}").geturl())
    with wire_proxy.count() as count, pytest.raises(DatabaseUnavailable):
        runner.status(directory=folder.path)
    assert count.connections == 1


def test_a_lost_lock_is_told(url: str, folder: Folder, said: list[str]) -> None:
    """Somebody ends the lock's session while a migration runs: another one might have run beside it."""
    folder.add(
        "20260101000000_a",
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database());",
    )

    with pytest.raises(MigrationError, match="The migration lock was lost"):
        runner.deploy(report=said.append, directory=folder.path)


def test_a_killed_runner_leaves_the_database_as_before_the_revision(url: str, project: Project) -> None:
    head = files.chain()[-1].revision
    slow = project.versions.add("20270101000000_slow", "CREATE TABLE half (x int);\nSELECT pg_sleep(600);")
    process = project.start("migrations", "deploy")
    until(lambda: sleepers(url), "the slow statement")

    process.kill()
    process.communicate()

    # The server notices within seconds, not after 600, and the next deploy finds the lock free.
    killed = time.monotonic()
    until(lambda: not sleepers(url), "the end of the killed runner's statement")
    assert time.monotonic() - killed < 15
    assert "half" not in catalog.tables(url)
    assert catalog.revision(url) == head
    mend(slow)
    done = project.run("migrations", "deploy")
    assert done.returncode == 0, done.stderr
    assert "half" in catalog.tables(url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("header", "what"),
    [("", "It was rolled back"), ("-- transaction: none", "It runs outside a transaction")],
)
def test_ctrl_c_and_sigterm_end_in_order_and_say_what_stays(
    url: str, project: Project, header: str, what: str, number: signal.Signals
) -> None:
    head = files.chain()[-1].revision
    project.versions.add("20270101000000_slow", "CREATE TABLE half (x int);\nSELECT pg_sleep(600);", header=header)
    process = project.start("migrations", "deploy")
    until(lambda: sleepers(url), "the slow statement")

    process.send_signal(number)
    output, _ = process.communicate(timeout=WAIT)

    assert process.returncode == 130
    assert f"Interrupted in 20270101000000_slow.sql. {what}" in output
    assert "Traceback" not in output
    until(lambda: not sleepers(url), "the end of the interrupted statement")
    assert ("half" in catalog.tables(url)) is bool(header)
    assert catalog.revision(url) == head


def test_several_first_deploys_at_once_make_one_database(url: str, project: Project) -> None:
    """One works; the others wait and find nothing to do. All exit 0, and there is one admin."""
    processes = [project.start("migrations", "deploy") for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], outputs
    assert sum("Applied" in output for output in outputs) == 1
    assert sum("Nothing to migrate" in output for output in outputs) == 3
    assert catalog.rows(url, "SELECT count(*) FROM users WHERE role = 'admin'") == [(1,)]
    assert catalog.revision(url) == files.chain()[-1].revision


def mend(path: Path) -> None:
    """Take the slow statement out of a file."""
    path.write_text(path.read_text().replace("SELECT pg_sleep(600);", ""))


def test_what_waits_for_the_lock_does_not_stop_a_concurrent_index_build(
    url: str, project: Project, said: list[str]
) -> None:
    """A waiter inside pg_advisory_lock would: CREATE INDEX CONCURRENTLY waits for its snapshot, it for the lock."""
    runner.deploy(report=said.append)
    project.versions.add(
        "20270101000000_slow_index",
        "SELECT pg_sleep(1.5);\nCREATE INDEX CONCURRENTLY users_role_idx ON users (role);",
        header="-- transaction: none",
    )
    working = project.start("migrations", "deploy")
    until(lambda: sleepers(url), "the slow statement")
    waiting = project.start("migrations", "deploy")

    outputs = [process.communicate(timeout=60)[0] for process in (working, waiting)]

    assert working.returncode == waiting.returncode == 0, outputs
    assert "Waiting for another migration: pid " in outputs[1]
    with psycopg.connect(url) as connection:
        valid = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'users_role_idx'::regclass")
        assert valid.fetchone() == (True,)

"""Checks of sessions and connections, provoked: locks held, statements that run, transactions left open."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from shared import db
from shared.health import thresholds
from shared.health.report import make_report
from shared.settings import reset_settings
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of, running, sessions, until
from tests.shared.health.conftest import Reporting

Client = psycopg.Connection[Any]


@contextmanager
def connected(url: str, name: str = "") -> Iterator[Client]:
    with psycopg.connect(url, autocommit=True, application_name=name) as connection:
        yield connection


def pid_of(client: Client) -> int:
    return client.info.backend_pid


def test_blocked_sessions_are_a_tree(
    report_on: Reporting, database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        root, middle, leaf, other = (
            stack.enter_context(connected(database, name)) for name in ("root", "middle", "leaf", "other")
        )
        root_pid, middle_pid = pid_of(root), pid_of(middle)
        root.execute("CREATE TABLE accounts (id int PRIMARY KEY, owner text)")
        root.execute("INSERT INTO accounts VALUES (1, 'alice'), (2, 'bob')")
        threads = stack.enter_context(ThreadPoolExecutor(3))
        root.execute("BEGIN")
        root.execute("UPDATE accounts SET owner = 's3cret' WHERE id = 1")
        middle.execute("BEGIN")
        middle.execute("UPDATE accounts SET owner = 'eve' WHERE id = 2")
        waiting = [
            threads.submit(middle.execute, "UPDATE accounts SET owner = 'mallory' WHERE id = 1"),
            threads.submit(leaf.execute, "UPDATE accounts SET owner = 'oscar' WHERE id = 2"),
        ]
        query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
        until(lambda: postgres.admin().execute(query).fetchone() == (2,))
        waiting.append(threads.submit(other.execute, "ALTER TABLE accounts ADD COLUMN note text"))
        until(lambda: postgres.admin().execute(query).fetchone() == (3,))

        monkeypatch.setattr(thresholds, "BLOCKED", thresholds.BLOCKED._replace(warn=0.0))
        found = report_on(database)["blocked_sessions"]

        root.execute("ROLLBACK")
        waiting[0].result(30)
        middle.execute("ROLLBACK")
        for one in waiting[1:]:
            one.result(30)

    rows = {row["application"]: row for row in found.rows}
    assert found.rows[0]["application"] == "root"
    assert [row["application"] for row in found.rows if row["depth"] != 1] == ["root", "leaf"]
    assert {name: row["depth"] for name, row in rows.items()} == {"root": 0, "middle": 1, "leaf": 2, "other": 1}
    assert rows["middle"]["blocked_by"] == [rows["root"]["pid"]] == [root_pid]
    assert rows["leaf"]["blocked_by"] == [middle_pid]
    assert set(rows["other"]["blocked_by"]) >= {root_pid, middle_pid}
    assert (rows["other"]["mode"], rows["other"]["relation"]) == ("AccessExclusiveLock", "public.accounts")
    assert rows["root"]["waiting_seconds"] is None
    assert rows["root"]["state"] == "idle in transaction"
    assert rows["root"]["query"] == "UPDATE accounts SET owner = ? WHERE id = ?"
    assert found.verdict == "warn"
    assert found.sql == (f"SELECT pg_terminate_backend({root_pid});",)


def test_sessions_that_wait_in_a_circle_are_all_told(report_on: Reporting, database: str, postgres: Postgres) -> None:
    with (
        connected(database) as one,
        connected(postgres.admin_url(name_of(database))) as two,
        ThreadPoolExecutor(2) as p,
    ):
        pids = [pid_of(one), pid_of(two)]
        two.execute("SET deadlock_timeout = '1h'")
        one_admin = postgres.admin()
        one_admin.execute("SELECT")
        one.execute("SELECT pg_advisory_lock(1)")
        two.execute("SELECT pg_advisory_lock(2)")
        second = p.submit(two.execute, "SELECT pg_advisory_lock(1)")
        until(lambda: running(postgres, database, "lock(1)"))
        # The first has the server's own deadlock_timeout of a second, which ends it.
        first = p.submit(one.execute, "SELECT pg_advisory_lock(2)")
        until(lambda: running(postgres, database, "lock(2)"))
        found = report_on(database)["blocked_sessions"]
        with pytest.raises(psycopg.errors.DeadlockDetected):
            first.result(30)
        one.execute("SELECT pg_advisory_unlock(1)")
        second.result(30)
    assert sorted(row["pid"] for row in found.rows) == sorted(pids)
    assert sorted(row["depth"] for row in found.rows) == [0, 1]


def test_a_long_query_is_seen_while_it_runs(
    report_on: Reporting, database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(database, "report") as client, ThreadPoolExecutor(1) as pool:
        pid = pid_of(client)
        sleeping = pool.submit(client.execute, "SELECT 'alice@example.com', pg_sleep(60)")
        until(lambda: running(postgres, database, "pg_sleep"))
        try:
            found = report_on(database)["long_running_queries"]
            monkeypatch.setattr(thresholds, "LONG_QUERY", thresholds.LONG_QUERY._replace(warn=0.0))
            late = report_on(database)["long_running_queries"]
        finally:
            client.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            sleeping.result(30)

    (row,) = [row for row in found.rows if row["pid"] == pid]
    assert (row["application"], row["query"]) == ("report", "SELECT ?, pg_sleep(?)")
    assert row["running_seconds"] < 60
    assert found.verdict == "ok"
    assert late.verdict == "warn"
    assert f"SELECT pg_cancel_backend({pid});" in late.sql
    assert report_on(database)["long_running_queries"].rows == ()


def test_a_transaction_left_open_is_seen(report_on: Reporting, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(database) as client:
        pid = pid_of(client)
        client.execute("BEGIN")
        client.execute("SELECT 42")
        found = report_on(database)["idle_in_transaction"]
        monkeypatch.setattr(thresholds, "IDLE_IN_TRANSACTION", thresholds.IDLE_IN_TRANSACTION._replace(fail=0.0))
        late = report_on(database)["idle_in_transaction"]
        client.execute("ROLLBACK")
        assert report_on(database)["idle_in_transaction"].rows == ()

    (row,) = found.rows
    assert (row["pid"], row["query"]) == (pid, "SELECT ?")
    assert found.verdict == "ok"
    assert late.verdict == "fail"
    assert f"SELECT pg_terminate_backend({pid});" in late.sql


def test_an_exhausted_server_fails_and_tells_who_has_the_connections(
    report_on: Reporting, lonely_postgres: Postgres, lonely_database: str
) -> None:
    calm = report_on(lonely_database)["connections"]
    with ExitStack() as stack:
        # 15 less 3 for superusers, 1 reserved, and the fixtures' own.
        for _ in range(9):
            stack.enter_context(connected(lonely_database, "worker/abc123"))
        crowded = report_on(lonely_database)["connections"]
        until(lambda: len(sessions(lonely_postgres, lonely_database)) == 9)
        stack.enter_context(connected(lonely_database, "worker/def456"))
        full = report_on(lonely_database)

    assert calm.verdict == "ok"
    assert (crowded.verdict, crowded.unit) == ("fail", "%")
    assert {"role": "app", "application": "worker", "state": "idle", "connections": 9, "processes": 1}.items() <= (
        crowded.rows[0].items()
    )
    assert full.status == full["connection"].verdict == "fail"
    assert "too_many_connections" in full["connection"].summary
    assert full.error is not None
    assert full.error.exit_code == 4
    assert {result.verdict for result in full.results if result.name != "connection"} == {"unknown"}


def test_the_limit_of_the_role_counts_where_it_is_nearer(
    report_on: Reporting, lonely_postgres: Postgres, lonely_database: str
) -> None:
    admin = lonely_postgres.admin()
    admin.execute("ALTER ROLE app CONNECTION LIMIT 4")
    try:
        with connected(lonely_database), connected(lonely_database):
            found = report_on(lonely_database)["connections"]
    finally:
        admin.execute("ALTER ROLE app CONNECTION LIMIT -1")
    assert (found.value, found.verdict) == (75.0, "warn")
    assert 'the role "app" may have' in found.summary
    assert 'ALTER ROLE "app" CONNECTION LIMIT 8;' in found.sql


def test_the_pool_of_this_process(report_on: Reporting, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = report_on(database, DATABASE_POOL_MAX="4")["pool"]
    assert (calm.value, calm.verdict) == (0.0, "ok")
    assert calm.rows[0]["room_for_processes"] == 97 // 4
    assert calm.rows[0]["processes_connected"] == 1

    monkeypatch.setenv("DATABASE_POOL_MAX", "2")
    reset_settings()
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        assert db.fetch_value("SELECT 1") == 1

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as one, db.transaction() as two:
            one.fetch_value("SELECT 1")
            two.fetch_value("SELECT 1")
            waiting = pool.submit(wait)
            waits.wait(30)
            until(lambda: db.get_pool().statistics()["waiting"])
            report = make_report()  # over a connection beside the pool
        waiting.result(30)
    assert report.error is None
    assert (report["pool"].value, report["pool"].verdict) == (100.0, "warn")
    assert "1 caller waiting" in report["pool"].summary

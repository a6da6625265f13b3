"""What is lent comes back: when the process ends, when a caller forgets, and after every kind of error."""

import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from shared import db
from shared.db.pool import Pool
from shared.deadline import within
from shared.errors import (
    DatabaseError,
    DatabaseUnavailable,
    DeadlineExceeded,
    Error,
    PoolClosed,
    PoolTimeout,
    QueryCanceled,
)
from tests.servers.postgres import Postgres
from tests.shared.db.conftest import Use
from tests.shared.db.watching import running, sessions, terminate, until

PID = "SELECT pg_backend_pid()"


# -- closing -----------------------------------------------------------------------------------------


@contextmanager
def query(postgres: Postgres, database: str, seconds: float) -> Iterator["Future[int]"]:
    """Run a query in another thread; the block begins when the server is at work on it."""
    with ThreadPoolExecutor() as executor:
        asked = executor.submit(db.fetch_value, f"SELECT 7 FROM pg_sleep({seconds})")
        until(lambda: running(postgres, database, "pg_sleep"))
        yield asked


def test_a_running_query_may_finish(
    use: Use, driver: str, postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    use(database)
    with query(postgres, database, 0.3) as asked, caplog.at_level(logging.INFO, "shared.db"):
        db.close_db(grace=30)
        assert asked.result() == 7
    assert [record.getMessage() for record in caplog.records] == [
        "closed 0 idle connections; waiting up to 30 s for 1 in use",
        "connections left in use: 0",
    ]
    until(lambda: not sessions(postgres, database))


def test_draining_closes_what_is_idle_and_what_comes_back_while_statements_still_run(
    use: Use, driver: str, postgres: Postgres, database: str
) -> None:
    use(database)
    with query(postgres, database, 0.3) as asked:
        assert db.fetch_value("SELECT 1") == 1
        assert len(sessions(postgres, database)) == 2
        db.drain()
        until(lambda: len(sessions(postgres, database)) == 1)
        assert db.fetch_value("SELECT 2") == 2
        assert asked.result() == 7
    until(lambda: not sessions(postgres, database))
    db.close_db()


def test_what_waits_while_draining_gets_what_comes_back(
    use: Use, driver: str, postgres: Postgres, database: str
) -> None:
    use(database, DATABASE_POOL_MAX="1")
    with query(postgres, database, 0.3) as asked, ThreadPoolExecutor() as executor:
        own = sessions(postgres, database)[0].pid
        waits = executor.submit(db.fetch_value, PID)
        until(lambda: db.get_pool().statistics()["waiting"] == 1)
        db.drain()
        assert asked.result() == 7
        assert waits.result() == own
    until(lambda: not sessions(postgres, database))


def test_a_query_that_outlasts_the_grace_period_is_cancelled(
    use: Use, driver: str, postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    use(database)
    with query(postgres, database, 60) as asked, caplog.at_level(logging.INFO, "shared.db"):
        db.close_db(grace=0.1)
        with pytest.raises(QueryCanceled):
            asked.result()
    assert [record.getMessage() for record in caplog.records][1:] == [
        "cancelling 1 statements that still run",
        "connections left in use: 0",
    ]
    until(lambda: not sessions(postgres, database))


def test_who_waits_is_told_and_who_comes_later_gets_a_new_pool(
    use: Use, driver: str, postgres: Postgres, database: str
) -> None:
    use(database, DATABASE_POOL_MAX="1")
    old = db.get_pool()
    with ThreadPoolExecutor() as executor, old.lease() as connection:
        waiting = executor.submit(old.lease)
        until(lambda: old.statistics()["waiting"] == 1)
        closing = executor.submit(db.close_db, 10)
        with pytest.raises(PoolClosed):
            waiting.result()
        assert connection.fetch("SELECT 1 AS n") == [{"n": 1}]  # still ours
        assert db.fetch_value("SELECT 2") == 2
        assert db.get_pool() is not old
    closing.result()
    assert old.statistics()["in_use"] == old.statistics()["idle"] == 0
    with pytest.raises(PoolClosed):
        old.lease()


def test_closing_twice_harms_nobody(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(database)
    db.close_db()
    db.fetch_value("SELECT 1")
    pool = db.get_pool()
    db.close_db()
    db.close_db()
    pool.close()
    assert pool.statistics()["closed"] == 1
    until(lambda: not sessions(postgres, database))


# -- leases -----------------------------------------------------------------------------------------


def test_a_second_release_harms_nobody(use: Use, driver: str, database: str) -> None:
    use(database, DATABASE_POOL_MAX="1")
    pool = db.get_pool()
    stale = pool.lease()
    stale.release()
    with pool.lease() as connection:
        connection.execute("BEGIN")
        stale.release()
        stale.__exit__(None, None, None)
        assert connection.in_transaction
        assert (pool.statistics()["in_use"], pool.statistics()["idle"]) == (1, 0)
        connection.execute("COMMIT")
    assert (pool.statistics()["in_use"], pool.statistics()["idle"]) == (0, 1)
    with pytest.raises(RuntimeError, match="given back"):
        stale.__enter__()


def test_a_forgotten_lease_comes_back_and_its_place_is_logged(
    use: Use, driver: str, postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    use(database, DATABASE_POOL_MAX="1")

    def forget() -> None:
        with_a_transaction = db.get_pool().lease().__enter__()
        with_a_transaction.execute("BEGIN")

    forget()
    gc.collect()
    assert "never given back" in caplog.text
    assert "test_closing.py" in caplog.text
    assert "forget" in caplog.text
    assert db.get_pool().statistics()["in_use"] == 0
    assert db.fetch_value("SELECT 1") == 1
    assert [session.state for session in sessions(postgres, database)] == ["idle"]  # not in a transaction


def test_a_transaction_that_was_never_ended_takes_nothing_with_it(use: Use, driver: str, database: str) -> None:
    use(database, DATABASE_POOL_MAX="1")
    db.execute("CREATE TABLE t (n int)")

    def forget() -> None:
        db.transaction().__enter__()

    forget()
    gc.collect()
    db.execute("INSERT INTO t VALUES (1)")  # its BEGIN must not travel with this
    db.get_pool().lease().release()
    assert db.fetch_value("SELECT count(*) FROM t") == 1


def test_an_interrupt_in_the_queue_loses_nothing(use: Use, driver: str, database: str) -> None:
    use(database, DATABASE_POOL_MAX="1")
    pool = db.get_pool()

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pool.lease():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                pool.lease()
            assert pool.statistics()["waiting"] == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert db.fetch_value("SELECT 1") == 1
    assert pool.statistics()["in_use"] == 0


def test_the_queue_is_bounded_in_number(use: Use, driver: str, database: str) -> None:
    def borrow() -> None:
        pool.lease(20).release()

    use(database)
    pool = Pool(db.get_connector().open, max_size=1, idle_timeout=10, max_waiting=2, track=True)
    with ThreadPoolExecutor() as executor, pool.lease():
        waiting = [executor.submit(borrow) for _ in range(2)]
        until(lambda: pool.statistics()["waiting"] == 2)
        with pytest.raises(PoolTimeout) as raised:
            pool.lease()
        assert "All 1 connections" in raised.value.message
        assert "test_closing.py" in raised.value.message  # who holds it
    for future in waiting:
        future.result()
    pool.close()


# -- after every kind of error --------------------------------------------------------------------------


def lost(postgres: Postgres) -> None:
    with db.transaction() as tx:
        terminate(postgres, tx.fetch_value(PID))
        tx.execute("SELECT 1")


FAILURES: dict[str, Callable[[Postgres], object]] = {
    "syntax": lambda _: db.execute("SELEC 1"),
    "syntax, with parameters": lambda _: db.execute("SELEC %(n)s", {"n": 1}),
    "several statements": lambda _: db.execute("SELECT 1; SELECT 1/0; SELECT 2"),
    "a row in the middle": lambda _: db.fetch_all("SELECT 1 / (3 - g) FROM generate_series(1, 5000) AS g"),
    "a missing parameter": lambda _: db.execute("SELECT %(n)s", {}),
    "a lone %": lambda _: db.execute("SELECT 5 % 2", {"n": 1}),
    "a value that is no text": lambda _: db.execute("SELECT %(s)s::text", {"s": "\ud800"}),
    "a value with a zero byte": lambda _: db.execute("SELECT %(s)s::text", {"s": "a\0b"}),
    "COPY from us": lambda _: db.execute("COPY t FROM STDIN"),
    "COPY to us": lambda _: db.execute("COPY t TO STDOUT"),
    "a unique violation": lambda _: db.execute_many("INSERT INTO t VALUES (%(n)s)", [{"n": 1}, {"n": 1}]),
    "cancelled": lambda _: db.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)"),
    "terminated": lambda _: db.execute("SELECT pg_terminate_backend(pg_backend_pid())"),
    "lost in a transaction": lost,
}


def in_a_transaction(fail: Callable[[Postgres], object], postgres: Postgres) -> None:
    """Fail in a transaction that is open on another connection of the pool, and take it along."""
    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (77)")
        fail(postgres)


def test_no_connection_is_lost_to_an_error(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(database, DATABASE_POOL_MAX="2")
    db.execute("CREATE TABLE t (n int PRIMARY KEY)")
    pool = db.get_pool()
    for what, fail in list(FAILURES.items()) * 2:  # more often than there are connections
        with pytest.raises((Error, UnicodeEncodeError, ValueError)):
            fail(postgres)
        with pytest.raises((Error, UnicodeEncodeError, ValueError)):
            in_a_transaction(fail, postgres)
        # The next gets its own answer, not what is left of the last.
        answers = [db.fetch_one("SELECT %(n)s::int AS mine", {"n": n}) for n in range(2)]
        assert answers == [{"mine": 0}, {"mine": 1}], what
    statistics = pool.statistics()
    assert (statistics["in_use"], statistics["waiting"]) == (0, 0)
    assert statistics["opened"] - statistics["closed"] == statistics["idle"] > 0
    assert db.fetch_value("SELECT count(*) FROM t") == 0
    until(lambda: len(sessions(postgres, database)) == pool.statistics()["idle"])
    assert {session.state for session in sessions(postgres, database)} == {"idle"}


def test_threads_that_fail_at_random_lose_nothing(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(database, DATABASE_POOL_MAX="3")
    db.execute("CREATE TABLE t (n int PRIMARY KEY)")
    wrong: list[object] = []
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        start.wait()
        for n in range(15):
            with suppress(DatabaseError, DatabaseUnavailable, DeadlineExceeded), within(0.02 if n % 5 == 0 else 10):
                db.fetch_value("SELECT pg_sleep(0.03)")
            with suppress(DatabaseError):
                db.execute("SELECT 1/0")
            mine = thread * 1000 + n
            with within(20):
                if (got := db.fetch_value("SELECT %(n)s::int", {"n": mine})) != mine:
                    wrong.append((mine, got))

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(8)))
    assert wrong == []
    statistics = db.get_pool().statistics()
    assert (statistics["in_use"], statistics["waiting"]) == (0, 0)
    assert statistics["opened"] - statistics["closed"] == statistics["idle"]
    until(lambda: len(sessions(postgres, database)) == statistics["idle"])

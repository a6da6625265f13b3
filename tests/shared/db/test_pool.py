"""The pool over real connections: what it lends, to whom, how many, and what it keeps.

What happens when a process is frozen or the database is away is in test_freeze.py and test_recovery.py.
"""

import gc
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from shared import db
from shared.db.connector import Connector
from shared.db.drivers import connect
from shared.db.pool import Pool
from shared.db.session import limits
from shared.db.url import DatabaseURL
from shared.deadline import within
from shared.errors import DatabaseError, DatabaseUnavailable, DeadlineExceeded, PoolClosed, PoolTimeout
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.watching import running, sessions, terminate, until

PID = "SELECT pg_backend_pid() AS pid"


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


MakePool = Callable[..., Pool]


@pytest.fixture
def make(database: str) -> Iterator[MakePool]:
    """Make pools of the test database: make(max_size=2), which close at the end. `driver` is psycopg, or what is asked.

    Most of what a pool does is the same whatever it lends.
    """
    url = DatabaseURL.parse(database)
    driver = os.environ.get("DATABASE_DRIVER", "psycopg")
    connector = Connector(url, driver=driver, limits=limits(request_timeout=20, idle_timeout=60), refresh=lambda: url)
    with ExitStack() as stack:

        def make(max_size: int, **others: object) -> Pool:
            settings = {"idle_timeout": 60.0, "timeout": 10.0, **others}
            pool = Pool(connector.open, max_size=max_size, **settings)  # type: ignore[arg-type]
            stack.callback(pool.close, grace=0)
            return pool

        yield make


def pid_of(pool: Pool) -> int:
    """Borrow a connection and return its backend."""
    with pool.lease() as connection:
        return int(connection.fetch(PID)[0]["pid"])


# -- opening ----------------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_use(make: MakePool, postgres: Postgres, database: str) -> None:
    pool = make(5)
    assert sessions(postgres, database) == []

    pid = pid_of(pool)
    assert [row.pid for row in sessions(postgres, database)] == [pid]


def test_a_connection_that_is_idle_is_used_before_another_is_opened(make: MakePool) -> None:
    pool = make(5)
    assert len({pid_of(pool) for _ in range(50)}) == 1
    assert pool.statistics()["opened"] == 1


def test_the_newest_idle_one_goes_first(make: MakePool) -> None:
    pool = make(5)
    leases = [pool.lease() for _ in range(3)]
    pids = []
    for lease in leases:
        with lease as connection:
            pids.append(connection.fetch(PID)[0]["pid"])

    assert pid_of(pool) == pids[-1]
    with pool.lease(), pool.lease() as second, pool.lease() as third:
        assert [second.fetch(PID)[0]["pid"], third.fetch(PID)[0]["pid"]] == [pids[1], pids[0]]


def test_the_maximum_is_never_exceeded(driver: str, make: MakePool, postgres: Postgres, database: str) -> None:
    pool = make(4)
    most = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, len(sessions(postgres, database)))

    def read(n: int) -> int:
        with pool.lease() as connection:
            row = connection.fetch("SELECT %(n)s::int AS n, pg_sleep(0.002)", {"n": n})[0]
            return int(row["n"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(20) as threads:
            assert list(threads.map(read, range(600))) == list(range(600))
    finally:
        over.set()
        watcher.join()

    assert 2 <= most <= 4
    statistics = pool.statistics()
    assert statistics["opened"] - statistics["closed"] <= 4
    assert (statistics["in_use"], statistics["waiting"], statistics["timeouts"]) == (0, 0, 0)
    assert statistics["lent"] == 600


# -- waiting ----------------------------------------------------------------------------------------


def test_a_wait_is_bounded_in_time(make: MakePool) -> None:
    pool = make(1, timeout=0.05)
    with pool.lease():
        for timeout in (None, 0.01, 0.0):
            with pytest.raises(PoolTimeout, match=r"All 1 connections .* maximum is 1"):
                pool.lease(timeout)
    assert pool.statistics()["timeouts"] == 3
    assert pool.statistics()["waiting"] == 0
    pid_of(pool)


def test_the_deadline_bounds_a_wait_without_a_timeout(make: MakePool) -> None:
    pool = make(1, timeout=None)
    with pool.lease():
        with pytest.raises(PoolTimeout), within(0.05):
            pool.lease()
        with pytest.raises(DeadlineExceeded), within(0):
            pool.lease()
    pid_of(pool)


def test_a_wait_without_any_bound_ends_with_a_connection(make: MakePool) -> None:
    pool = make(1, timeout=None)
    with ThreadPoolExecutor(1) as thread:
        with pool.lease():
            waiting = thread.submit(pid_of, pool)
            until(lambda: pool.statistics()["waiting"] == 1)
        assert waiting.result(10) == pid_of(pool)


def test_the_number_of_callers_that_wait_is_bounded(make: MakePool) -> None:
    pool = make(1, max_waiting=2)
    with ThreadPoolExecutor(2) as threads, pool.lease():
        waiting = [threads.submit(pid_of, pool) for _ in range(2)]
        until(lambda: pool.statistics()["waiting"] == 2)

        begin = time.monotonic()
        with pytest.raises(PoolTimeout, match="2 more callers wait"):
            pool.lease()
        assert time.monotonic() - begin < pool.timeout  # type: ignore[operator]
    assert len({future.result() for future in waiting}) == 1


def test_who_waited_longest_is_served_first(make: MakePool) -> None:
    pool = make(1)
    served: list[int] = []

    def ask(n: int) -> None:
        with pool.lease():
            served.append(n)

    threads = []
    with pool.lease():
        for n in range(6):
            threads.append(threading.Thread(target=ask, args=[n]))
            threads[-1].start()
            until(lambda n=n: pool.statistics()["waiting"] == n + 1)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert served == list(range(6))


def test_a_newcomer_does_not_overtake_those_who_wait(make: MakePool) -> None:
    pool = make(1)
    order: list[str] = []

    def ask() -> None:
        with pool.lease():
            order.append("waited")

    with ThreadPoolExecutor(1) as thread:
        lease = pool.lease()
        waiting = thread.submit(ask)
        until(lambda: pool.statistics()["waiting"] == 1)
        lease.release()
        with pool.lease():
            order.append("newcomer")
        waiting.result(10)
    assert order == ["waited", "newcomer"]


def test_a_connection_that_breaks_in_use_makes_room_for_who_waits(
    driver: str, make: MakePool, postgres: Postgres, database: str
) -> None:
    pool = make(1)
    with ThreadPoolExecutor(1) as thread:
        with pool.lease() as connection:
            broken = connection.fetch(PID)[0]["pid"]
            waiting = thread.submit(pid_of, pool)
            until(lambda: pool.statistics()["waiting"] == 1)
            terminate(postgres, broken)
            with pytest.raises(DatabaseUnavailable):
                connection.execute("SELECT 1")
        assert waiting.result(10) not in (broken, None)
    assert pool.statistics()["closed"] == 1


def test_who_holds_what_is_told_in_tests(use: Use, database: str) -> None:
    use(database, DATABASE_POOL_MAX="2", DATABASE_POOL_TIMEOUT="0.05")
    with db.transaction(), db.get_pool().lease(), pytest.raises(PoolTimeout) as caught:
        db.fetch_value("SELECT 1")

    here = "test_who_holds_what_is_told_in_tests"
    assert caught.value.message.count(here) == 2
    assert "test_pool.py:" in caught.value.message
    assert caught.value.solutions


def test_production_does_not_remember_who_holds_what(use: Use, database: str) -> None:
    use(database, DATABASE_POOL_MAX="1", DATABASE_POOL_TIMEOUT="0.05", APP_ENV="production")
    with db.transaction(), pytest.raises(PoolTimeout) as caught:
        db.fetch_value("SELECT 1")
    assert "test_pool.py" not in caught.value.message


# -- coming back ------------------------------------------------------------------------------------


def test_an_open_transaction_is_rolled_back(driver: str, make: MakePool) -> None:
    pool = make(1)
    with pool.lease() as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        pid = connection.fetch(PID)[0]["pid"]
    with pool.lease() as connection:
        assert connection.fetch(PID)[0]["pid"] == pid
        assert connection.fetch("SELECT count(*)::int AS n FROM t") == [{"n": 0}]
        connection.execute("BEGIN")
        with pytest.raises(DatabaseError):
            connection.execute("SELECT 1 / 0")
    with pool.lease() as connection:
        assert not connection.in_transaction
        connection.execute("SELECT 1")


def test_a_second_return_harms_nobody(make: MakePool) -> None:
    pool = make(2)
    stale = pool.lease()
    stale.release()
    with pool.lease() as first:
        stale.release()
        with pool.lease() as second:
            assert first is not second
    with pytest.raises(RuntimeError, match="given back"), stale:
        pass
    assert pool.statistics()["in_use"] == 0


def test_a_lease_that_is_forgotten_comes_back_and_is_told(make: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    pool = make(1, track=True)
    lease = pool.lease()
    with caplog.at_level(logging.ERROR):
        del lease
        gc.collect()

    assert "never given back" in caplog.text
    assert "test_a_lease_that_is_forgotten" in caplog.text
    pid_of(pool)


def test_a_stream_that_is_left_gives_its_connection_back(make: MakePool) -> None:
    pool = make(1)

    def numbers() -> Iterator[int]:
        with pool.lease() as connection:
            for row in connection.fetch("SELECT generate_series(1, 9) AS n"):
                yield row["n"]

    for n in numbers():
        if n == 3:
            break
    gc.collect()
    pid_of(pool)


def test_connections_beyond_the_first_are_given_up_when_idle(make: MakePool, postgres: Postgres, database: str) -> None:
    clock = Clock()
    pool = make(5, surplus_timeout=1.0, clock=clock)
    leases = [pool.lease() for _ in range(4)]
    for lease in leases:
        lease.release()
    assert pool.statistics()["idle"] == 4

    clock.now += 0.9
    pid_of(pool)
    assert pool.statistics()["idle"] == 4

    clock.now += 0.9  # three are idle for 1.8 s, the one that was used for 0.9 s
    pid_of(pool)
    assert pool.statistics()["idle"] == 1
    until(lambda: len(sessions(postgres, database)) == 1)


def test_connections_that_were_opened_together_do_not_expire_together(make: MakePool) -> None:
    clock = Clock()
    pool = make(8, idle_timeout=1e9, surplus_timeout=1e9, max_lifetime=1000.0, clock=clock)
    leases = [pool.lease() for _ in range(8)]
    for lease in leases:
        lease.release()

    def closed_at(age: float) -> int:
        clock.now = 1_000_000.0 + age
        leases = [pool.lease() for _ in range(8)]
        for lease in leases:
            lease.release()
        return pool.statistics()["closed"]

    assert closed_at(899) == 0
    assert len({closed_at(age) for age in range(900, 1001, 4)}) > 3
    assert pool.statistics()["closed"] == 8


# -- liveness ---------------------------------------------------------------------------------------


def test_when_all_idle_ones_were_ended_the_next_read_succeeds(
    driver: str, make: MakePool, postgres: Postgres, database: str
) -> None:
    pool = make(4)
    leases = [pool.lease() for _ in range(4)]
    for lease in leases:
        lease.release()
    killed = [row.pid for row in sessions(postgres, database)]
    terminate(postgres, *killed)

    assert pid_of(pool) not in killed
    with ThreadPoolExecutor(4) as threads:
        assert not set(threads.map(lambda _: pid_of(pool), range(20))) & set(killed)
    statistics = pool.statistics()
    assert (statistics["closed"], statistics["failed"]) == (4, 0)


def test_a_dead_one_is_seen_without_asking_and_its_neighbours_are_pinged_once(
    driver: str, make: MakePool, postgres: Postgres, database: str, wire_proxy: WireProxy
) -> None:
    url = DatabaseURL.parse(wire_proxy.url(database) + "?sslmode=disable")
    pool = Pool(lambda *_: connect(url, driver, connect_timeout=10), max_size=2, idle_timeout=60)
    older, newer = pool.lease(), pool.lease()
    pids = []
    for lease in (older, newer):
        with lease as connection:
            pids.append(connection.fetch(PID)[0]["pid"])
    terminate(postgres, pids[1])
    until(lambda: len(wire_proxy.links) == 1)  # the end has come through

    with wire_proxy.count() as count:
        assert pid_of(pool) == pids[0]
        assert pid_of(pool) == pids[0]
    assert count.flights == 1 + 2
    pool.close()


def test_a_notification_is_no_reason_to_close(driver: str, make: MakePool) -> None:
    pool = make(2)
    with pool.lease() as listener, pool.lease() as other:
        listener.execute("LISTEN news")
        pid = listener.fetch(PID)[0]["pid"]
        other.execute("NOTIFY news")
        raw = listener.raw if driver == "psycopg" else listener.raw._usock
        assert select.select([raw], [], [], 10)[0]
    # The one that listens was given back last.
    for _ in range(3):
        assert pid_of(pool) == pid
    assert pool.statistics()["closed"] == 0


# -- counting, closing ------------------------------------------------------------------------------


def test_statistics_count_what_happened(make: MakePool) -> None:
    pool = make(2)
    with pool.lease(), pool.lease():
        with pytest.raises(PoolTimeout):
            pool.lease(0.02)
        busy = pool.statistics()
    pid_of(pool)

    assert busy == {
        "max_size": 2,
        "in_use": 2,
        "idle": 0,
        "waiting": 0,
        "opened": 2,
        "closed": 0,
        "lent": 2,
        "waited": 1,
        "timeouts": 1,
        "failed": 0,
    }
    assert pool.statistics() == {**busy, "in_use": 0, "idle": 2, "lent": 3}


def test_a_closed_pool_lends_nothing_and_keeps_nothing(make: MakePool, postgres: Postgres, database: str) -> None:
    pool = make(2)
    late = pool.lease()
    pid_of(pool)
    pool.close(grace=0)

    with pytest.raises(PoolClosed):
        pool.lease()
    late.release()
    until(lambda: sessions(postgres, database) == [])
    assert pool.statistics()["idle"] == 0


def test_closing_wakes_those_who_wait(make: MakePool) -> None:
    pool = make(1)
    with ThreadPoolExecutor(1) as thread:
        lease = pool.lease()
        waiting = thread.submit(pid_of, pool)
        until(lambda: pool.statistics()["waiting"] == 1)
        pool.close(grace=0)
        with pytest.raises(PoolClosed):
            waiting.result(10)
        lease.release()


def test_closing_lets_a_statement_finish_and_cancels_a_long_one(
    driver: str, make: MakePool, postgres: Postgres, database: str
) -> None:
    for seconds, grace, finished in ((0.2, 10.0, True), (30.0, 0.0, False)):
        pool = make(1)

        def sleep(pool: Pool = pool, seconds: float = seconds) -> int:
            with pool.lease() as connection:
                return connection.execute("SELECT pg_sleep(%(s)s::float)", {"s": seconds})

        with ThreadPoolExecutor(1) as thread:
            sleeping = thread.submit(sleep)
            until(lambda: running(postgres, database, "pg_sleep"))
            pool.close(grace)
            if finished:
                assert sleeping.result(10) == 1
            else:
                with pytest.raises(Exception, match="cancel"):
                    sleeping.result(10)


def test_a_lease_costs_no_round_trip(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    db.fetch_value("SELECT 1")
    with wire_proxy.count() as count:
        for _ in range(100):
            with db.get_pool().lease():
                pass
    assert (count.flights, count.bytes_from_client) == (0, 0)

"""What a platform does to a process: freezes it for any time, drops its connections, sets its clock."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from shared import db
from shared.db.pool import Pool
from shared.deadline import within
from shared.errors import DeadlineExceeded
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.instances import Instance, instance
from tests.shared.db.watching import name_of, running, sessions, terminate, until

DRIVERS = ("psycopg", "pg8000")
IDLE_LIMIT = 1  # seconds; that of a serverless instance for its connections beyond the first, too
PID = "SELECT pg_backend_pid()"


def test_connections_that_the_server_ended_meanwhile_are_not_used(
    postgres: Postgres, database: str, driver: str
) -> None:
    with instance(database, DATABASE_DRIVER=driver) as frozen:
        before = frozen.ask("spread", 3)["result"]
        frozen.freeze()
        terminate(postgres, *before)
        frozen.thaw()
        after = frozen.ask("spread", 3)["result"]
        assert len(set(after)) == 3
        assert not set(after) & set(before)


def test_frozen_instances_keep_no_connection_beyond_their_idle_limit(postgres: Postgres, database: str) -> None:
    with ExitStack() as stack:

        def frozen(driver: str, **variables: str) -> Instance:
            one = stack.enter_context(instance(database, DATABASE_DRIVER=driver, **variables))
            one.ask("spread", 3)
            one.freeze()
            return one

        short = [frozen(driver, DATABASE_POOL_IDLE_TIMEOUT=str(IDLE_LIMIT)) for driver in DRIVERS]
        usual = [frozen(driver) for driver in DRIVERS]
        # Those with the usual limit keep one each for longer, and what a burst opened beside it as briefly.
        until(lambda: len(sessions(postgres, database)) == 2, timeout=IDLE_LIMIT + 5)
        before = {session.pid for session in sessions(postgres, database)}
        for one in usual:
            one.thaw()
            assert one.ask("fetch", PID)["result"] in before
        for one in short:
            one.thaw()
            assert one.ask("fetch", PID)["result"] not in before


def test_an_instance_that_is_frozen_in_mid_result_keeps_no_backend(postgres: Postgres, database: str) -> None:
    # The lock holds the statement back until the client stands still, so that its buffers must fill.
    large = "SELECT repeat('x', 1000) FROM pg_advisory_xact_lock_shared(1), generate_series(1, 100000)"
    with ExitStack() as stack:
        gate = stack.enter_context(psycopg.connect(postgres.admin_url(name_of(database)), autocommit=True))
        gate.execute("SELECT pg_advisory_lock(1)")
        frozen = [
            stack.enter_context(instance(database, DATABASE_DRIVER=driver, DATABASE_POOL_IDLE_TIMEOUT=str(IDLE_LIMIT)))
            for driver in DRIVERS
        ]
        for one in frozen:
            one.tell("fetch", large)
        until(lambda: [s.wait_event for s in running(postgres, database, "repeat")] == ["advisory"] * 2)
        for one in frozen:
            one.freeze()
        gate.execute("SELECT pg_advisory_unlock(1)")
        until(lambda: "ClientWrite" in [s.wait_event for s in running(postgres, database, "repeat")])
        gate.close()
        until(lambda: not sessions(postgres, database))
        for one in frozen:
            one.thaw()
            assert one.answer()["error"] == "database_unavailable"
            assert one.ask("fetch", "SELECT 1") == {"result": 1}


def test_a_black_hole_under_idle_connections_costs_one_request(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database), VERCEL="1")
    pool = db.get_pool()
    for lease in [pool.lease() for _ in range(4)]:
        lease.release()
    assert pool.statistics()["idle"] == 4
    wire_proxy.black_hole()

    begun = time.monotonic()
    with within(0.3), pytest.raises(DeadlineExceeded):
        db.fetch_value("SELECT 1")
    assert time.monotonic() - begun < 5  # it hung until the kernel gave up, before

    with within(10):
        assert db.fetch_value("SELECT 1") == 1
    statistics = pool.statistics()
    # The first was lost in use and the second at its ping, which told enough of the other two.
    assert (statistics["opened"], statistics["closed"], statistics["idle"]) == (5, 4, 1)
    assert wire_proxy.total.connections <= 5 + 2  # and cancel requests


def test_a_suspect_that_answers_is_kept(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(database, VERCEL="1")
    pool = db.get_pool()
    leases = [pool.lease() for _ in range(3)]
    pids = []
    for lease in leases:
        with lease as connection:
            pids += [row["pg_backend_pid"] for row in connection.fetch(PID)]
    terminate(postgres, pids[-1])  # the newest idle one is the first to be lent
    assert db.fetch_value(PID) == pids[-2]
    assert [entry.suspect for entry in pool._idle] == [True, False]
    assert pool.statistics()["opened"] == 3


class Clocked:
    """A pool on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.pool = Pool(db.get_connector().open, max_size=2, idle_timeout=20, max_lifetime=100, clock=lambda: self.now)

    def pid(self) -> int:
        """Return the backend that serves now."""
        with self.pool.lease() as connection:
            return int(connection.fetch(PID)[0]["pg_backend_pid"])


@pytest.fixture
def clocked(use: Use, driver: str, database: str) -> Iterator[Clocked]:
    """Return a pool on a clock of its own."""
    use(database)
    clocked = Clocked()
    yield clocked
    clocked.pool.close()


def test_the_idle_limit_goes_by_the_wall_clock(clocked: Clocked) -> None:
    first = clocked.pid()
    clocked.now += 19
    assert clocked.pid() == first
    clocked.now += 20  # in one leap, as a process sees that was frozen
    assert clocked.pid() != first
    assert clocked.pool.statistics()["closed"] == 1


def test_the_lifetime_goes_by_the_wall_clock(clocked: Clocked) -> None:
    first = clocked.pid()
    for _ in range(8):
        clocked.now += 10
        assert clocked.pid() == first
    clocked.now += 10  # lifetimes are drawn from 90 to 100
    clocked.pid()
    clocked.now += 10
    assert clocked.pid() != first


@pytest.mark.parametrize("used_before", [False, True], ids=["idle", "in use"])
def test_a_clock_that_is_set_back_makes_no_connection_immortal(clocked: Clocked, used_before: bool) -> None:
    first = clocked.pid()
    if used_before:
        with clocked.pool.lease():
            clocked.now -= 3600
    else:
        clocked.now -= 3600
    second = clocked.pid()
    assert second != first
    clocked.now += 19
    assert clocked.pid() == second


def test_many_idle_connections_do_not_outlive_a_quiet_time(clocked: Clocked) -> None:
    for lease in [clocked.pool.lease() for _ in range(2)]:
        lease.release()
    clocked.now += 15
    clocked.pid()  # the newest: the other goes on ageing
    clocked.now += 6
    clocked.pid()
    assert clocked.pool.statistics()["idle"] == 1

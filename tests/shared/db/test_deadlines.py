"""A statement, a COMMIT and a connect end with the request's time, whatever the server and the network do."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared import db
from shared.deadline import remaining, within
from shared.errors import (
    ConnectionTimeout,
    DeadlineExceeded,
    Error,
    TooManyConnections,
    TransactionResolutionUnknown,
)
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.process import free_port, silent
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.replay import Recorded, replaying
from tests.shared.db.watching import name_of, running, sessions, until

PID = "SELECT pg_backend_pid()"
SLOW = "SELECT pg_sleep(60)"
TIME = 0.2  # seconds that each request has
# Two seconds go to cancelling it and waiting for that. A busy machine may need more; without a deadline it is 60.
LATE = 20.0


@contextmanager
def ends_in_time(kind: type[Error] = DeadlineExceeded) -> Iterator[None]:
    """Give the block its time, and demand that it fails for want of it, not long after."""
    begun = time.monotonic()
    with pytest.raises(kind), within(TIME):
        yield
    assert time.monotonic() - begun < LATE


def in_transaction(sql: str) -> None:
    """Run a statement as the first of a transaction, in one round trip with its BEGIN."""
    with db.transaction() as tx:
        tx.fetch_value(sql)


def after_another(sql: str) -> None:
    """Run a statement as the second of a transaction."""
    with db.transaction() as tx:
        tx.execute("SELECT 1")
        tx.fetch_value(sql)


def by_stream(sql: str) -> None:
    """Run a statement through a server-side cursor."""
    list(db.stream(sql))


WAYS = pytest.mark.parametrize("run", [db.fetch_value, in_transaction, after_another, by_stream])
FIRST = pytest.mark.parametrize("run", [db.fetch_value, in_transaction])


@WAYS
def test_a_statement_past_its_deadline_is_cancelled_on_the_server(
    use: Use, driver: str, postgres: Postgres, database: str, run: Callable[[str], None]
) -> None:
    use(database)
    before = db.fetch_value(PID)
    with ends_in_time():
        run(SLOW)
    until(lambda: not running(postgres, database, "pg_sleep"))
    assert (db.fetch_value(PID) == before) == (driver == "psycopg")  # pg8000 gives its connection up
    statistics = db.get_pool().statistics()
    assert (statistics["in_use"], statistics["idle"], len(sessions(postgres, database))) == (0, 1, 1)


@FIRST
def test_through_pgbouncer_too(
    use: Use, driver: str, postgres: Postgres, database: str, pgbouncer: PgBouncer, run: Callable[[str], None]
) -> None:
    use(pgbouncer.url(database) + "?pgbouncer=true")
    with ends_in_time():
        run(SLOW)
    until(lambda: not running(postgres, database, "pg_sleep"))
    assert db.fetch_value("SELECT 1") == 1
    assert db.get_pool().statistics()["opened"] == (1 if driver == "psycopg" else 2)


def test_an_answer_that_trickles_in_is_bounded_as_a_whole(use: Use, driver: str, database: str) -> None:
    use(database)
    with ends_in_time():
        db.fetch_all("SELECT repeat('x', 9000), pg_sleep(0.1) FROM generate_series(1, 600)")
    assert db.fetch_value("SELECT 1") == 1


def test_a_statement_that_cannot_be_sent_is_bounded(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database))
    db.fetch_value("SELECT 1")
    wire_proxy.pause()
    with ends_in_time():
        db.fetch_value("SELECT length(%(text)s)", {"text": "x" * 20_000_000})
    assert db.fetch_value("SELECT 1") == 1
    assert db.get_pool().statistics()["opened"] == 2


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a backend, which then can neither answer nor be cancelled."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@FIRST
def test_a_backend_that_stands_still_costs_its_connection(
    use: Use, driver: str, postgres: Postgres, database: str, run: Callable[[str], None]
) -> None:
    use(database)
    pid = db.fetch_value(PID)
    with stopped(pid):
        with ends_in_time():
            run("SELECT 1")
        assert db.fetch_value(PID) != pid
    until(lambda: len(sessions(postgres, database)) == 1)


def test_a_black_hole_costs_its_connection(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    use(wire_proxy.url(database))
    db.fetch_value("SELECT 1")
    wire_proxy.black_hole()
    with ends_in_time():
        db.fetch_value("SELECT 1")
    assert db.fetch_value("SELECT 1") == 1


SLOW_COMMIT = """
    CREATE TABLE t (n int);
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
"""


def test_a_slow_commit_is_cancelled(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(database)
    db.execute(SLOW_COMMIT)
    # psycopg sees that the server cancelled it; pg8000 does not wait for that.
    with (
        ends_in_time(DeadlineExceeded if driver == "psycopg" else TransactionResolutionUnknown),
        db.transaction() as tx,
    ):
        tx.execute("INSERT INTO t VALUES (1)")
    until(lambda: not running(postgres, database, "COMMIT"))
    assert db.fetch_value("SELECT count(*) FROM t") == 0
    assert db.get_pool().statistics()["idle"] == 1


def test_a_commit_without_an_answer_ends(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    use(wire_proxy.url(database))
    db.execute("CREATE TABLE t (n int)")
    wire_proxy.on("client", b"COMMIT", do="black hole")
    with ends_in_time(TransactionResolutionUnknown), db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
    wire_proxy.cut("rst")
    assert db.fetch_value("SELECT count(*) FROM t") == 0


def test_a_commit_that_is_too_late_is_not_sent(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(database)
    db.execute("CREATE TABLE t (n int)")
    with ends_in_time(), db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
        until(lambda: remaining() == 0)
    assert db.fetch_value("SELECT count(*) FROM t") == 0
    assert db.get_pool().statistics()["opened"] == 1  # it was rolled back, which is worth a moment more


@pytest.mark.parametrize("idle", [True, False], ids=["idle connection", "no connection"])
def test_without_time_nothing_is_sent(use: Use, driver: str, database: str, wire_proxy: WireProxy, idle: bool) -> None:
    use(wire_proxy.url(database))
    if idle:
        db.fetch_value("SELECT 1")
    with wire_proxy.count() as count, within(0):
        with pytest.raises(DeadlineExceeded):
            db.fetch_value("SELECT %(n)s::int", {"n": 1})
        with pytest.raises(DeadlineExceeded):
            db.execute("SELECT 1")
        with pytest.raises(DeadlineExceeded):
            db.execute_many("SELECT %(n)s::int", [{"n": 1}])
    assert (count.bytes_from_client, count.connections) == (0, 0)
    assert db.fetch_value("SELECT 2") == 2
    assert db.get_pool().statistics()["failed"] == 0


def test_connecting_to_a_black_hole_ends(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    use(wire_proxy.url(database))
    wire_proxy.silence()
    with ends_in_time(ConnectionTimeout):
        db.fetch_value("SELECT 1")
    with ends_in_time(ConnectionTimeout):
        db.open_connection()
    begun = time.monotonic()
    with pytest.raises(ConnectionTimeout):
        db.get_pool().lease(timeout=TIME)  # without a deadline of the request
    assert time.monotonic() - begun < 9  # the connect timeout alone is 10
    wire_proxy.accept()
    assert db.fetch_value("SELECT 1") == 1


def test_a_silent_host_leaves_time_for_the_next(
    use: Use, driver: str, postgres: Postgres, database: str, wire_proxy: WireProxy
) -> None:
    hosts = f"@127.0.0.1:{wire_proxy.port},127.0.0.1:{postgres.port}/"
    use(database.rpartition("@")[0] + hosts + name_of(database))
    wire_proxy.silence()
    with within(1):
        assert db.fetch_value("SELECT 1") == 1


NAME = "db.test"


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have NAME lead to these addresses, in this order."""
    resolve = socket.getaddrinfo

    def found(host: str, *arguments: Any, **options: Any) -> Any:
        places = addresses if host == NAME else (host,)
        return [answer for place in places for answer in resolve(place, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_what_a_server_said_tells_more_than_that_another_refuses(
    use: Use, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another address of the same host is not asked."""
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    full = Recorded("too_many_connections", "53300", "sorry, too many clients already")
    with replaying(full) as port, socket.create_server(("127.0.0.2", port)) as other:
        use(f"postgresql://app:x@{NAME}:{port},127.0.0.1:{free_port()}/d", DATABASE_DISABLE_SSL="true")
        with within(5), pytest.raises(TooManyConnections):
            db.open_connection()
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_slow_log_in_is_bounded_as_a_whole(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    wire_proxy.delay = 0.1
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    with within(0.3), pytest.raises(ConnectionTimeout):  # which is longer than each wait for an answer
        db.open_connection()


def test_a_silent_address_of_a_host_leaves_time_for_the_next(
    use: Use, driver: str, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.2", "127.0.0.1")
    use(database.replace("@127.0.0.1:", f"@{NAME}:"), DATABASE_DISABLE_SSL="true")
    with silent("127.0.0.2", postgres.port), within(1):
        assert db.fetch_value("SELECT 1") == 1


def test_an_interrupt_leaves_no_answer_for_the_next(use: Use, driver: str, database: str) -> None:
    use(database)
    db.fetch_value("SELECT 1")

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            db.fetch_value("SELECT 666 FROM pg_sleep(1)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [db.fetch_value("SELECT %(n)s::int", {"n": n}) for n in range(3)] == [0, 1, 2]
    assert db.get_pool().statistics()["in_use"] == 0

"""The database goes away and comes back, moves, fills up or changes its password: no process needs a restart.

Each test records its time to recovery; `pytest -s` prints it.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from psycopg import sql

from ops.postgres_server import StopMode
from shared import db
from shared.db.diagnosis import explain
from shared.db.pool import Pool
from shared.deadline import within
from shared.errors import (
    ConnectionFailure,
    ConnectionRefused,
    ConnectionTimeout,
    DatabaseUnavailable,
    Error,
    PoolTimeout,
    TooManyConnections,
)
from tests.servers import process
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.servers.tls import TLSPostgres
from tests.shared.db.conftest import Use
from tests.shared.db.instances import instance
from tests.shared.db.watching import name_of, sessions, terminate, until

PID = "SELECT pg_backend_pid()"
Record = Callable[[str, float], None]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Print a time to recovery, and keep it with the test's result."""

    def record(what: str, seconds: float) -> None:
        request.node.user_properties.append((what, seconds))
        print(f"\n{request.node.name}: {what} after {seconds:.2f} s")  # noqa: T201

    return record


def loans() -> int:
    """Return how often the pool has lent a connection."""
    return db.get_pool().statistics()["lent"]


@contextmanager
def requests(threads: int) -> Iterator[list[Error]]:
    """Let threads read the whole time, with a deadline of 5 s each; give the errors that they get."""
    errors: list[Error] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                with within(5):
                    db.fetch_value("SELECT 1")
            except Error as error:
                errors.append(error)
            over.wait(0.01)

    with ThreadPoolExecutor(threads) as executor:
        futures = [executor.submit(read) for _ in range(threads)]
        try:
            yield errors
        finally:
            over.set()
        for future in futures:
            future.result()


# -- the server restarts, or another takes over -------------------------------------------------------


def test_a_restart_of_the_server_needs_none_of_ours(
    use: Use, driver: str, own_postgres: Postgres, record: Record
) -> None:
    use(own_postgres.url("postgres"))
    own_postgres.admin().execute("CHECKPOINT")  # the role's creation would not survive: synchronous_commit is off
    modes: tuple[StopMode, ...] = ("fast", "immediate")
    with requests(threads=8) as errors:
        for mode in modes:
            before, failed = loans(), len(errors)
            until(lambda before=before: loans() > before + 20)  # type: ignore[misc]
            own_postgres.server.stop(mode)
            until(lambda failed=failed: len(errors) >= failed + 8)  # type: ignore[misc]
            own_postgres.server.start()
            ready, before = time.monotonic(), loans()
            until(lambda before=before: loans() > before)  # type: ignore[misc]
            record(f"the first request, {mode},", time.monotonic() - ready)
            failed = len(errors)
            until(lambda before=before: loans() > before + 100)  # type: ignore[misc]
            assert len(errors) <= failed + 8  # each thread had at most one attempt under way
    assert all(isinstance(error, DatabaseUnavailable) for error in errors)
    db.close_db()


def test_a_server_that_starts_is_waited_for(use: Use, driver: str, own_postgres: Postgres, record: Record) -> None:
    data, log = own_postgres.server.data_dir, own_postgres.server.log_file
    gate = data / "go"
    own_postgres.server.stop()
    # Recovery asks for the next WAL file, and until it has an answer the server refuses connections with 57P03.
    (data / "postgresql.auto.conf").write_text(
        f"restore_command = 'while test ! -e \"{gate}\"; do sleep 0.02; done; false'\n", encoding="utf-8"
    )
    (data / "recovery.signal").touch()

    def ask() -> float:
        until(lambda: is_listening(own_postgres.port))
        with within(20):
            assert db.fetch_value("SELECT 1") == 1
        return time.monotonic()

    def open_gate() -> float:
        until(lambda: log.read_text(encoding="utf-8").count("FATAL:  the database system is ") >= 3)
        gate.touch()
        return time.monotonic()

    use(own_postgres.url("postgres"))
    with ThreadPoolExecutor() as executor:
        asked, opened = executor.submit(ask), executor.submit(open_gate)
        own_postgres.server.start()
        record("the request", asked.result() - opened.result())
    assert db.get_pool().statistics()["failed"] >= 3
    db.close_db()


def is_listening(port: int) -> bool:
    """Tell whether somebody takes TCP connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_failover_is_followed(own_postgres: Postgres, standby: Postgres, record: Record) -> None:
    with ExitStack() as stack:
        url = own_postgres.url("postgres").replace("@127.0.0.1", f"@127.0.0.1:{standby.port},127.0.0.1")
        url += "?target_session_attrs=read-write"
        clients = [stack.enter_context(instance(url, DATABASE_DRIVER=driver)) for driver in ("psycopg", "pg8000")]
        where = "SELECT current_setting('port')::int"
        assert [client.ask("fetch", where, 5) for client in clients] == [{"result": own_postgres.port}] * 2

        own_postgres.server.stop("immediate")
        refusals = [client.ask("fetch", where, 5) for client in clients]
        assert [answer.get("error") for answer in refusals] == ["connection_refused"] * 2

        standby.admin().execute("SELECT pg_promote()")
        promoted = time.monotonic()
        for client in clients:
            until(lambda client=client: client.ask("fetch", where, 5) == {"result": standby.port})  # type: ignore[misc]
            record("a request", time.monotonic() - promoted)


# -- the password changes ---------------------------------------------------------------------------


def test_a_rotated_password_is_read_again(
    use: Use, driver: str, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    role = sql.Identifier(f"rotated_{name_of(database)}")
    admin = postgres.admin()

    def url(password: str) -> str:
        return f"postgresql://{role.as_string()[1:-1]}:{password}@127.0.0.1:{postgres.port}/{name_of(database)}"

    admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'first'").format(role))
    try:
        use(url("first"))
        first = db.fetch_value(PID)
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD 'second'").format(role))
        monkeypatch.setenv("DATABASE_URL", url("second"))
        assert db.fetch_value(PID) == first  # a session outlives its password
        terminate(postgres, first)
        begun = time.monotonic()
        assert db.fetch_value(PID) != first
        record("the request", time.monotonic() - begun)
        assert db.get_pool().statistics()["failed"] == 0
        db.close_db()
    finally:
        admin.execute(sql.SQL("DROP ROLE {}").format(role))


# -- the server is full ------------------------------------------------------------------------------


@contextmanager
def narrow_role(postgres: Postgres, database: str, limit: int) -> Iterator[str]:
    """Give the URL for a role that may have `limit` connections."""
    name = f"narrow_{name_of(database)}"
    role = sql.Identifier(name)
    create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' CONNECTION LIMIT {}")
    postgres.admin().execute(create.format(role, sql.Literal(limit)))
    try:
        yield f"postgresql://{name}:secret@127.0.0.1:{postgres.port}/{name_of(database)}"
        db.close_db()
        until(lambda: not sessions(postgres, database))
    finally:
        postgres.admin().execute(sql.SQL("DROP ROLE {}").format(role))


def test_a_full_server_is_waited_for(use: Use, driver: str, postgres: Postgres, database: str, record: Record) -> None:
    with narrow_role(postgres, database, limit=1) as url, ThreadPoolExecutor() as executor:
        use(url)
        other = psycopg.connect(url)

        def ask() -> float:
            with within(20):
                db.fetch_value("SELECT 1")
            return time.monotonic()

        waiting = [executor.submit(ask) for _ in range(10)]
        until(lambda: db.get_pool().statistics()["failed"] >= 3)
        assert not any(future.done() for future in waiting)
        other.close()
        room = time.monotonic()
        finished = [future.result() for future in waiting]
        record("the first of 10 requests", min(finished) - room)
        record("the last", max(finished) - room)


def test_a_server_that_was_full_is_reported_though_the_last_attempt_had_no_time(
    use: Use, driver: str, postgres: Postgres, database: str, wire_proxy: WireProxy
) -> None:
    def ask() -> None:
        with within(0.8):
            db.fetch_value("SELECT 1")

    with narrow_role(postgres, database, limit=1) as url, psycopg.connect(url), ThreadPoolExecutor() as executor:
        use(wire_proxy.url(url))
        asked = executor.submit(ask)
        until(lambda: db.get_pool().statistics()["failed"] >= 1)
        wire_proxy.silence()
        with pytest.raises(TooManyConnections):
            asked.result()


def test_an_outage_is_diagnosed_by_what_was_seen_and_not_by_an_attempt_that_had_no_time(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database))
    wire_proxy.target = ("127.0.0.1", process.free_port())
    with pytest.raises(ConnectionFailure) as seen:
        db.get_pool().lease(timeout=5)
    wire_proxy.silence()
    with pytest.raises(ConnectionFailure) as raised:
        db.get_pool().lease(timeout=0.9)
    assert raised.value is not seen.value
    assert explain(raised.value).code == "connection_failure"


def test_callers_share_what_a_full_server_gave_and_are_told_why(
    use: Use, driver: str, postgres: Postgres, database: str
) -> None:
    with narrow_role(postgres, database, limit=1) as url, ThreadPoolExecutor() as executor:
        use(url)
        pool = db.get_pool()
        with psycopg.connect(url), within(0.3), pytest.raises(TooManyConnections):
            db.fetch_value("SELECT 1")
        until(lambda: not sessions(postgres, database))
        with pool.lease():
            failed = pool.statistics()["failed"]
            with pytest.raises(PoolTimeout) as raised:
                pool.lease(timeout=0.3)
            assert isinstance(raised.value.__cause__, TooManyConnections)
            assert pool.statistics()["failed"] == failed  # it left the room to those who have no connection
            waiting = executor.submit(lambda: db.fetch_value("SELECT 1"))
            until(lambda: pool.statistics()["waiting"] == 1)
        assert waiting.result() == 1


def test_a_serverless_instance_gives_back_what_a_burst_opened(
    use: Use, driver: str, postgres: Postgres, database: str, record: Record
) -> None:
    with narrow_role(postgres, database, limit=5) as url, ThreadPoolExecutor() as executor:
        use(url, VERCEL="1")
        now = 1_000_000.0
        hoarder = Pool(db.get_connector().open, max_size=10, idle_timeout=20, surplus_timeout=1, clock=lambda: now)
        for lease in [hoarder.lease() for _ in range(5)]:
            lease.release()
        assert hoarder.statistics()["idle"] == 5

        def ask() -> None:
            with within(20):
                db.fetch_value("SELECT 1")

        waiting = [executor.submit(ask) for _ in range(3)]
        until(lambda: db.get_pool().statistics()["failed"] >= 2)
        now += 1.1
        begun = time.monotonic()
        hoarder.lease().release()
        for future in waiting:
            future.result()
        record("requests of another instance", time.monotonic() - begun)
        assert hoarder.statistics()["idle"] == 1
        hoarder.close()


def test_a_full_server_is_asked_once_an_attempt(use: Use, tls_postgres: TLSPostgres) -> None:
    postgres = tls_postgres.postgres
    with (
        postgres.database() as name,
        narrow_role(postgres, name, limit=1) as url,
        WireProxy("127.0.0.1", postgres.port) as proxy,
    ):
        use(proxy.url(url) + "?sslmode=require")
        with db.get_pool().lease():  # it taught that TLS may begin at once
            with proxy.count() as count, pytest.raises(TooManyConnections):
                db.open_connection()
            assert count.connections == 1
        db.close_db()


# -- an outage ------------------------------------------------------------------------------------------


def test_one_caller_probes_for_all_in_an_outage(
    use: Use, driver: str, database: str, wire_proxy: WireProxy, record: Record
) -> None:
    use(wire_proxy.url(database))
    pool = db.get_pool()
    db.fetch_value("SELECT 1")
    wire_proxy.silence()
    wire_proxy.cut("rst")
    with within(0.2), pytest.raises(DatabaseUnavailable):
        db.fetch_value("SELECT 1")
    until(lambda: not wire_proxy.links)

    def ask(seconds: float) -> Error | None:
        try:
            with within(seconds):
                db.fetch_value("SELECT 1")
        except DatabaseUnavailable as error:
            return error
        return None

    at_once = 0
    with ThreadPoolExecutor(30) as executor:
        futures = [executor.submit(ask, 0.3 + n * 0.01) for n in range(30)]
        while not all(future.done() for future in futures):
            at_once = max(at_once, len(wire_proxy.links))
            time.sleep(0.001)
        errors = [future.result() for future in futures]
        assert at_once == 1
        assert all(isinstance(error, ConnectionTimeout) for error in errors)
        assert pool.statistics()["waiting"] == pool.statistics()["in_use"] == 0

        futures = [executor.submit(ask, 10) for _ in range(30)]
        until(lambda: pool.statistics()["waiting"] >= 20)
        wire_proxy.accept()
        wire_proxy.cut("rst")
        over = time.monotonic()
        assert [future.result() for future in futures] == [None] * 30
        record("all of 30 requests", time.monotonic() - over)


def test_refused_connections_are_waited_out_while_a_restart_may_last(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database))
    db.fetch_value("SELECT 1")
    wire_proxy.refuse()
    wire_proxy.cut("rst")
    until(lambda: not wire_proxy.links)

    def ask() -> object:
        with within(10):
            return db.fetch_value("SELECT 1")

    with ThreadPoolExecutor(10) as executor:
        asked = [executor.submit(ask) for _ in range(10)]
        until(lambda: db.get_pool().statistics()["failed"] >= 3)
        wire_proxy.accept()
        assert [future.result() for future in asked] == [1] * 10


def test_a_restart_is_waited_out_though_another_attempt_had_failed_long_before(
    use: Use,
    driver: str,
    postgres: Postgres,
    database: str,
    wire_proxy: WireProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.db.pool._RESTART", 1.5)
    with narrow_role(postgres, database, limit=1) as url, ThreadPoolExecutor() as executor:
        use(wire_proxy.url(url))
        pool = db.get_pool()
        with pool.lease():
            with pytest.raises(PoolTimeout):
                pool.lease(timeout=0.3)
            failed, then = pool.statistics()["failed"], time.monotonic()
            assert failed == 1
        until(lambda: time.monotonic() > then + 1.5)
        wire_proxy.refuse()
        wire_proxy.cut("rst")
        until(lambda: not wire_proxy.links)
        asked = executor.submit(pool.lease, timeout=10)
        until(lambda: pool.statistics()["failed"] >= failed + 2)
        wire_proxy.accept()
        asked.result().release()


def test_a_server_that_was_full_is_not_what_a_later_outage_is_told_by(
    use: Use,
    driver: str,
    postgres: Postgres,
    database: str,
    wire_proxy: WireProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.db.pool._SHARING", 1.0)
    with narrow_role(postgres, database, limit=1) as url, ThreadPoolExecutor() as executor:
        use(wire_proxy.url(url))
        pool = db.get_pool()
        with psycopg.connect(url):
            asked = executor.submit(pool.lease, timeout=10)
            until(lambda: pool.statistics()["failed"] >= 1)
        asked.result().release()
        then = time.monotonic()
        until(lambda: time.monotonic() > then + 1.0)
        wire_proxy.silence()
        wire_proxy.cut("rst")
        until(lambda: not wire_proxy.links)
        with pytest.raises(ConnectionTimeout):
            pool.lease(timeout=0.5)


def test_a_refused_connection_is_told_at_once_where_there_was_none_before(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    """As with a wrong address."""
    use(wire_proxy.url(database))
    wire_proxy.refuse()
    with pytest.raises(ConnectionRefused):
        db.fetch_value("SELECT 1")
    assert db.get_pool().statistics()["failed"] == 1


def test_connections_that_stay_refused_fail_at_once_and_one_probes(
    use: Use, driver: str, database: str, wire_proxy: WireProxy, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.pool._RESTART", 0.2)
    use(wire_proxy.url(database))
    with requests(threads=30) as errors:
        until(lambda: loans() > 30)
        wire_proxy.refuse()
        wire_proxy.cut("rst")
        until(lambda: len(errors) > 60)
        before = loans()
        wire_proxy.accept()
        over = time.monotonic()
        until(lambda: loans() > before)
        record("the first request", time.monotonic() - over)
        until(lambda: loans() > before + 100)
        record("100 requests of 30 threads", time.monotonic() - over)
    statistics = db.get_pool().statistics()
    assert all(isinstance(error, DatabaseUnavailable) for error in errors)
    assert statistics["failed"] < len(errors) / 2  # the others shared what one found
    assert statistics["in_use"] == statistics["waiting"] == 0


def test_who_queued_before_an_outage_does_not_sleep_through_its_end(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database), DATABASE_POOL_MAX="1")
    wire_proxy.silence()
    with ThreadPoolExecutor() as executor:

        def ask(seconds: float) -> float:
            begun = time.monotonic()
            with within(seconds):
                db.fetch_value("SELECT 1")
            return time.monotonic() - begun

        first = executor.submit(ask, 0.3)  # it connects, in vain
        until(lambda: wire_proxy.links)
        second = executor.submit(ask, 20)  # it queues behind
        until(lambda: db.get_pool().statistics()["waiting"] == 1)
        with pytest.raises(ConnectionTimeout):
            first.result()
        wire_proxy.accept()
        wire_proxy.cut("rst")
        assert second.result() < 15  # not only once its time is nearly over


def test_a_pool_timeout_tells_the_last_failure_to_connect(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database), DATABASE_POOL_MAX="2")
    pool = db.get_pool()
    with pool.lease() as connection:
        wire_proxy.silence()
        with pytest.raises(ConnectionTimeout):
            pool.lease(timeout=0.2)
        assert connection.fetch("SELECT 1 AS n") == [{"n": 1}]
        with ThreadPoolExecutor() as executor:
            prober = executor.submit(pool.lease, timeout=20)
            until(lambda: len(wire_proxy.links) == 2)
            with pytest.raises(PoolTimeout) as raised:
                pool.lease(timeout=0.2)
            assert isinstance(raised.value.__cause__, ConnectionTimeout)
            wire_proxy.accept()
            wire_proxy.cut("rst")
            prober.result().release()


def test_a_wait_for_the_first_connection_does_not_blame_other_callers(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database), DATABASE_POOL_MAX="1")
    wire_proxy.silence()
    with ThreadPoolExecutor() as executor:
        first = executor.submit(lambda: db.get_pool().lease(timeout=0.6))
        until(lambda: wire_proxy.links)
        with pytest.raises(ConnectionTimeout):
            db.get_pool().lease(timeout=0.2)
        with pytest.raises(ConnectionTimeout):
            first.result()

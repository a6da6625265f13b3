"""Behind a transaction pooler: everybody gets their own rows, nothing is left in a session, and it is recognised."""

import contextlib
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from shared import db
from shared.db import replica
from shared.db.diagnosis import explain
from shared.deadline import within
from shared.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DeadlineExceeded,
    TooManyConnections,
    UniqueViolation,
)
from tests.servers import binaries
from tests.servers.pgbouncer import PgBouncer
from tests.servers.pgbouncer import running as running_pgbouncer
from tests.servers.postgres import APP, APP_PASSWORD, Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.replay import Recorded, replaying
from tests.shared.db.watching import name_of, running, sessions, terminate, until

PID = "SELECT pg_backend_pid()"
T = TypeVar("T")


@pytest.fixture
def own_pgbouncer(run_directory: Path, postgres: Postgres) -> "Iterator[OwnPgBouncer]":
    """Return what starts a PgBouncer with settings of its own, before `postgres`."""
    with ExitStack() as stack:
        yield OwnPgBouncer(stack, run_directory, postgres.port)


class OwnPgBouncer:
    """Start a PgBouncer that ends with the test."""

    def __init__(self, stack: ExitStack, directory: Path, port: int) -> None:
        self._stack = stack
        self._directory = directory
        self._port = port

    def __call__(self, flavour: str = binaries.PGBOUNCERS[0], *, port: int | None = None, **settings: str) -> PgBouncer:
        directory = self._directory / f"pgbouncer-{secrets.token_hex(4)}"
        users = {APP: APP_PASSWORD}
        start = running_pgbouncer(flavour, directory, port or self._port, users, settings)
        try:
            return self._stack.enter_context(start)
        except binaries.Unavailable as error:
            pytest.skip(str(error))


# -- rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "queries"), [(2, 500), (8, 250)], ids=["2 x 500", "8 x 250"])
def test_each_client_gets_its_own_rows(
    use: Use, driver: str, database: str, any_pgbouncer: PgBouncer, clients: int, queries: int
) -> None:
    use(any_pgbouncer.url(database) + "?pgbouncer=true", DATABASE_POOL_MAX=str(clients))
    start = threading.Barrier(clients)

    def ask(client: int) -> list[object]:
        start.wait()
        wrong: list[object] = []
        for n in range(queries):
            value = client * queries + n
            # Few texts, each sent often: what a driver would prepare. Each names its own column.
            row = db.fetch_one(f"SELECT %(value)s::int AS c{n % 7}", {"value": value})
            if row != {f"c{n % 7}": value}:
                wrong.append((value, row))
        return wrong

    with ThreadPoolExecutor(clients) as executor:
        assert list(executor.map(ask, range(clients))) == [[]] * clients
    db.close_db()


def test_transactions_of_many_clients_stay_apart(
    use: Use, driver: str, database: str, any_pgbouncer: PgBouncer
) -> None:
    use(any_pgbouncer.url(database) + "?pgbouncer=true", DATABASE_POOL_MAX="8")
    db.execute("CREATE TABLE t (client int, n int)")

    def write(client: int) -> None:
        for n in range(20):
            with db.transaction() as tx:
                tx.execute("INSERT INTO t VALUES (%(client)s, %(n)s)", {"client": client, "n": n})
                rows = tx.fetch_all("SELECT n FROM t WHERE client = %(client)s ORDER BY n", {"client": client})
                assert [row["n"] for row in rows] == list(range(n + 1))

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(write, range(8)))
    assert db.fetch_value("SELECT count(*) FROM t") == 160
    db.close_db()


# -- how it is recognised ------------------------------------------------------------------------------


def test_a_pooler_on_an_unknown_port_is_learned_from_its_refusal(
    use: Use, driver: str, database: str, any_pgbouncer: PgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    with WireProxy("127.0.0.1", any_pgbouncer.port) as proxy:
        use(proxy.url(any_pgbouncer.url(database)), DATABASE_DISABLE_SSL="true")
        with caplog.at_level(logging.WARNING), proxy.count() as count:
            assert db.fetch_value("SELECT 1") == 1
        assert count.connections == 2
        assert "a pooler answers at 127.0.0.1" in caplog.text
        with proxy.count() as count, closing(db.open_connection()) as connection:
            assert connection.fetch("SELECT 1 AS n") == [{"n": 1}]
        assert count.connections == 1
        assert db.get_connector().pooler == "transaction"
        assert db.get_pool().statistics()["failed"] == 0
        db.close_db()


def test_a_pooler_that_drops_our_options_is_learned_from_their_absence(
    use: Use, driver: str, database: str, own_pgbouncer: OwnPgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    pooler = own_pgbouncer(ignore_startup_parameters="options")
    use(pooler.url(database) + "?application_name=mine")
    with caplog.at_level(logging.WARNING):
        assert db.fetch_value("SELECT 1") == 1
    assert "drops start-up options" in caplog.text
    assert db.get_connector().pooler == "transaction"
    with closing(db.open_connection()) as connection:  # the name goes by itself from now on
        assert connection.parameter("application_name") == "mine"
    db.close_db()


def test_a_direct_server_is_not_taken_for_a_pooler(use: Use, driver: str, database: str) -> None:
    use(database)
    assert db.fetch_value("SHOW idle_session_timeout") == "12s"  # 2 s above our own limit in tests
    assert db.get_connector().pooler == "none"


def test_a_schema_in_the_url_is_refused_behind_a_pooler(
    use: Use, driver: str, database: str, pgbouncer: PgBouncer
) -> None:
    for hints in ("?pgbouncer=true&schema=other", "?schema=other"):  # told, and learned
        use(pgbouncer.url(database) + hints)
        with pytest.raises(ConfigurationError) as raised:
            db.fetch_value("SELECT 1")
        assert "schema=other" in raised.value.message
        assert 'ALTER ROLE "app" SET search_path' in raised.value.solutions[0]
        assert db.get_pool().statistics()["in_use"] == 0
    use(pgbouncer.url(database) + "?pgbouncer=true&schema=public")
    assert db.fetch_value("SELECT 1") == 1
    db.close_db()


# -- what is left in a session ----------------------------------------------------------------------


SESSION_STATE = re.compile(
    r"\b(SET|RESET|DISCARD|DEALLOCATE|PREPARE|LISTEN|UNLISTEN|TEMP|TEMPORARY|pg_advisory\w*|set_config)\b",
    re.IGNORECASE,
)


def test_no_statement_of_ours_touches_the_session(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    # The server itself stands for the pooler, because PgBouncer sends SETs of its own.
    postgres.admin().execute(f"ALTER DATABASE {name_of(database)} SET log_statement = 'all'")
    log = postgres.server.log_file
    begin = log.stat().st_size
    use(database + "?pgbouncer=true")
    everything_we_do()
    assert db.fetch_value("SELECT count(*) FROM pg_settings WHERE source = 'client' AND name ~ 'timeout$'") == 0
    assert db.fetch_value("SELECT count(*) FROM pg_prepared_statements") == 0
    db.close_db()
    said = log.read_text(encoding="utf-8")[begin:]
    statements = re.findall(r"LOG:  (?:statement|execute <unnamed>): (.*)", said)
    assert len(statements) > 20
    assert [statement for statement in statements if SESSION_STATE.search(statement)] == []
    assert re.findall(r"LOG:  execute (?!<unnamed>:).*", said) == []  # nothing has a name on the server


def everything_we_do() -> None:
    """Call all of `shared.db`, with its errors, its rollbacks and a statement that is cancelled."""
    db.execute("CREATE TABLE t (n int PRIMARY KEY)")
    for n in range(8):
        db.execute("INSERT INTO t VALUES (%(n)s)", {"n": n})
    db.execute_many("INSERT INTO t VALUES (%(n)s)", [{"n": n} for n in range(10, 20)])
    assert len(list(db.stream("SELECT n FROM t", batch=5))) == 18
    with db.transaction(isolation="serializable", read_only=True) as tx:
        tx.fetch_all("SELECT n FROM t")
    with db.transaction() as tx:
        with pytest.raises(UniqueViolation), tx.savepoint():
            tx.execute("INSERT INTO t VALUES (1)")
        tx.execute("INSERT INTO t VALUES (100)")
    with pytest.raises(UniqueViolation):
        db.execute("INSERT INTO t VALUES (1)")
    with contextlib.suppress(ZeroDivisionError), db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (200)")
        raise ZeroDivisionError
    with pytest.raises(DeadlineExceeded), within(0.1):
        db.execute("SELECT pg_sleep(10)")
    for entry in db.get_pool()._idle:
        entry.suspect = True
    db.fetch_value("SELECT 1")


# -- faults ------------------------------------------------------------------------------------------


@contextmanager
def one_connection(use: Use, pooler: PgBouncer, database: str) -> Iterator[None]:
    """Use one connection to the pooler."""
    use(pooler.url(database) + "?pgbouncer=true", DATABASE_POOL_MAX="1")
    yield
    statistics = db.get_pool().statistics()
    assert (statistics["in_use"], statistics["idle"]) == (0, 1)
    db.close_db()


def test_a_backend_that_dies_behind_the_pooler_costs_one_statement(
    use: Use, driver: str, postgres: Postgres, database: str, any_pgbouncer: PgBouncer
) -> None:
    with one_connection(use, any_pgbouncer, database), ThreadPoolExecutor() as executor:
        first = db.fetch_value(PID)
        terminate(postgres, first)  # idle: the pooler takes another
        assert db.fetch_value(PID) != first

        asked = executor.submit(db.fetch_value, "SELECT 1 FROM pg_sleep(60)")
        terminate(postgres, until(lambda: running(postgres, database, "pg_sleep"))[0].pid)
        with pytest.raises(DatabaseUnavailable):
            asked.result()
        assert db.fetch_value("SELECT 1") == 1

        db.execute("CREATE TABLE t (n int)")
        with pytest.raises(DatabaseUnavailable):
            lose_the_backend(postgres)
        assert db.fetch_value("SELECT count(*) FROM t") == 0


def lose_the_backend(postgres: Postgres) -> None:
    """Have the backend die between two statements of a transaction."""
    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
        terminate(postgres, tx.fetch_value(PID))
        tx.execute("INSERT INTO t VALUES (2)")


def test_a_pooler_that_restarts_costs_no_request(
    use: Use, driver: str, postgres: Postgres, database: str, own_pgbouncer: OwnPgBouncer
) -> None:
    pooler = own_pgbouncer()
    with one_connection(use, pooler, database):
        assert db.fetch_value("SELECT 1") == 1
        pooler.stop()
        pooler.start()
        assert db.fetch_value("SELECT 1") == 1
        assert db.get_pool().statistics()["opened"] == 2


def test_a_full_pooler_is_waited_for(
    use: Use, driver: str, postgres: Postgres, database: str, own_pgbouncer: OwnPgBouncer
) -> None:
    pooler = own_pgbouncer(max_client_conn="1")
    with one_connection(use, pooler, database), ThreadPoolExecutor() as executor:
        other = psycopg.connect(pooler.url(database))

        def ask(seconds: float) -> int:
            with within(seconds):
                return int(db.fetch_value("SELECT 1"))

        with pytest.raises(TooManyConnections):
            ask(0.3)
        asked = executor.submit(ask, 20)
        until(lambda: db.get_pool().statistics()["failed"] >= 4)
        other.close()
        assert asked.result() == 1
        until(lambda: len(sessions(postgres, database)) <= 1)


# -- a pooler without a server -------------------------------------------------------------------------


STARTING = Recorded("cannot_connect_now", "57P03", "the database system is starting up")


class Away:
    """A server behind a pooler that has just restarted and lets nobody in yet, until somebody waits for an `answer`.

    The pooler knows: somebody else has waited for a server when it tried to log in. From then on it refuses statements.
    """

    def __init__(self, proxy: WireProxy, starting: int, pooler: PgBouncer, database: str) -> None:
        self._proxy = proxy
        self._started = proxy.target
        self._url = pooler.url(database)
        self._log = pooler.log
        proxy.target = ("127.0.0.1", starting)
        proxy.cut("rst")
        until(lambda: not proxy.links)
        threading.Thread(target=self._wait_for_it, daemon=True).start()
        until(lambda: "login failed" in pooler.log.read_text())

    def _wait_for_it(self) -> None:
        with contextlib.suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as somebody:
            somebody.execute("SELECT 1")

    def answer(self, ask: Callable[[], T]) -> T:
        """Give what this gives, which is asked while it is away; it comes back after a statement was refused."""

        def work() -> T:
            with within(20):
                return ask()

        with ThreadPoolExecutor() as executor:
            asked = executor.submit(work)
            until(lambda: "server login has been failing" in self._log.read_text())
            self._proxy.target = self._started
            return asked.result()


@pytest.fixture(params=binaries.PGBOUNCERS)
def away(
    request: pytest.FixtureRequest,
    use: Use,
    driver: str,
    database: str,
    wire_proxy: WireProxy,
    own_pgbouncer: OwnPgBouncer,
) -> Iterator[Away]:
    """Return the server of a pooler before which a pool is warm."""
    pooler = own_pgbouncer(request.param, port=wire_proxy.port, server_login_retry="1")
    use(pooler.url(database) + "?pgbouncer=true")
    db.execute("CREATE TABLE written (n int)")
    with replaying(STARTING) as port:
        yield Away(wire_proxy, port, pooler, database)


def test_a_read_for_a_replica_is_sent_again_too(away: Away) -> None:
    assert away.answer(lambda: replica.fetch_value("SELECT 1")) == 1


def test_a_statement_is_sent_again_where_the_pooler_had_no_server_for_it(away: Away) -> None:
    assert away.answer(lambda: db.execute("INSERT INTO written VALUES (1)")) == 1
    assert db.fetch_all("SELECT n FROM written") == [{"n": 1}]


def test_a_pooler_that_lets_everybody_in_uses_up_no_attempts(away: Away) -> None:
    begun = 0

    def write(tx: db.Transaction) -> int:
        nonlocal begun
        begun += 1
        return tx.execute("INSERT INTO written VALUES (1)")

    assert away.answer(lambda: db.run_transaction(write)) == 1
    assert begun == 2  # the first on a connection that was there
    assert db.fetch_all("SELECT n FROM written") == [{"n": 1}]


def test_a_pooler_that_gets_no_server_is_named(away: Away) -> None:
    with within(2), pytest.raises(DatabaseUnavailable) as raised:
        db.fetch_value("SELECT 1")
    assert explain(raised.value).code in ("pooler_cannot_log_in", "pooler_without_server")

"""The engine and the pool below it: loans, sessions that stay as they were, disconnects, deadlines, poolers, threads.

Each trap of putting SQLAlchemy over another pool has its test here.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, func, literal, select, text
from sqlalchemy import exc as sa
from sqlalchemy.dialects.postgresql import HSTORE
from sqlalchemy.orm import Session

from shared import db, deadline
from shared.db.orm import get_engine
from shared.errors import ConfigurationError, DatabaseUnavailable, DeadlineExceeded, PoolTimeout
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.instances import ROOT
from tests.shared.db.watching import name_of, running, sessions, terminate, until

PID = text("SELECT pg_backend_pid()")
LEVEL = text("SHOW transaction_isolation")
SLOW = text("SELECT pg_sleep(60)")
LATE = 20.0  # seconds; without its deadline the statement would take 60


@pytest.fixture
def engine(use: Use, driver: str, database: str) -> Engine:
    """Return the engine on an empty database."""
    use(database)
    return get_engine()


@pytest.fixture
def proxied(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> Engine:
    """Return the engine on an empty database, through the proxy and without TLS."""
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    return get_engine()


def autocommit(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def value(engine: Engine, statement: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(statement).scalar_one()


def run_program(program: str, database: str, driver: str) -> str:
    """Run a program on a database in an interpreter of its own, and return what it prints."""
    environ = {**os.environ, "DATABASE_URL": database, "DATABASE_DRIVER": driver, "APP_ENV": "test"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


# -- loans -------------------------------------------------------------------------------------------


def test_the_face_does_not_import_sqlalchemy() -> None:
    program = "import sys; from shared import db; import shared.db.retry; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_thousand_checkouts_leave_the_pool_as_it_was(engine: Engine, postgres: Postgres, database: str) -> None:
    pid = value(engine, PID)
    pool = db.get_pool()
    before = pool.statistics()
    for n in range(250):
        assert value(engine, select(literal(n))) == n
        assert value(autocommit(engine), PID) == pid
        with Session(engine) as session, session.begin_nested():
            session.execute(select(literal(n)))
        with pytest.raises(sa.DBAPIError), engine.begin() as connection:
            connection.execute(text("SELEC"))
    assert pool.statistics() == {**before, "lent": before["lent"] + 1000}
    assert [(row.pid, row.state) for row in sessions(postgres, database)] == [(pid, "idle")]
    with pool.lease() as connection_of_ours:
        assert connection_of_ours.raw.autocommit is True
        assert not connection_of_ours.in_transaction


def test_nothing_piles_up_on_a_connection(use: Use, database: str) -> None:
    """SQLAlchemy's own dialect adds a notice handler whenever a connection is checked out of another pool."""
    use(database)
    for _ in range(3):
        value(get_engine(), PID)
    with db.get_pool().lease() as connection:
        assert connection.raw._notice_handlers == []
        assert connection.raw.isolation_level is None


def test_the_version_is_known_without_a_question(use: Use, any_database: str, driver: str) -> None:
    use(any_database)
    engine = get_engine()
    with engine.connect() as connection:
        pass
    reported = db.fetch_value("SHOW server_version_num")
    assert engine.dialect.server_version_info is not None
    assert engine.dialect.server_version_info[0] == int(reported) // 10000
    assert connection.dialect.supports_virtual_generated_columns is (int(reported) >= 180000)  # type: ignore[attr-defined]


def test_hstore_comes_and_goes_without_a_look_up_of_its_type(engine: Engine, postgres: Postgres, database: str) -> None:
    if not value(engine, text("SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'")):
        pytest.skip("this build of PostgreSQL has no hstore")
    db.execute("CREATE EXTENSION hstore")
    db.execute("CREATE TABLE h (h hstore)")
    pairs = {"a": "1", "b": None}
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO h VALUES (:h)").bindparams(bindparam("h", pairs, HSTORE)))
        assert connection.execute(text("SELECT h FROM h").columns(h=HSTORE)).scalar_one() == pairs


def test_a_second_close_by_a_stale_holder_harms_nobody(engine: Engine) -> None:
    raw = engine.raw_connection()
    stale: Any = raw.dbapi_connection
    raw.close()
    with engine.connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT 1"))
        stale.close()
        stale.terminate()
        stale.rollback()
        with pytest.raises(Exception, match="given back"):
            stale.cursor()
        with pytest.raises(Exception, match="given back"):
            stale.commit()
        assert connection.execute(text("SELECT count(*) FROM mine")).scalar_one() == 1
        assert db.get_pool().statistics()["in_use"] == 1
    assert db.get_pool().statistics() == {**db.get_pool().statistics(), "in_use": 0, "idle": 1, "opened": 1}


FORGETFUL = """
import faulthandler, gc
from sqlalchemy import text
from shared import db
from shared.db.orm import get_engine

faulthandler.dump_traceback_later(20, exit=True)
gc.disable()
connection = get_engine().connect()
connection.execute(text("CREATE TEMPORARY TABLE t AS SELECT 1"))
cycle = [connection]
cycle.append(cycle)
del connection, cycle
pool = db.get_pool()
assert pool.statistics()["in_use"] == 1
with pool._lock:
    gc.collect()
assert (pool.statistics()["in_use"], pool.statistics()["idle"]) == (0, 1)
assert db.fetch_value("SELECT to_regclass('t')") is None
db.close_db()
"""


def test_a_connection_that_nobody_closes_is_taken_back_by_the_collector(database: str, driver: str) -> None:
    """SQLAlchemy's finalizer may run in a thread that holds the pool's lock: a plain Lock would wait for itself."""
    run_program(FORGETFUL, database, driver)


def test_terminate_really_closes(engine: Engine, postgres: Postgres, database: str) -> None:
    with engine.connect() as connection:
        connection.execute(PID)
        connection.invalidate()
        until(lambda: not sessions(postgres, database))
    assert db.get_pool().statistics()["closed"] == 1
    assert value(engine, text("SELECT 1")) == 1


def test_an_interrupted_statement_costs_its_connection(engine: Engine, postgres: Postgres, database: str) -> None:
    def interrupt() -> None:
        until(lambda: running(postgres, database, "pg_sleep"))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(interrupt)
        with pytest.raises(KeyboardInterrupt), engine.begin() as connection:
            connection.execute(SLOW)
    until(lambda: not sessions(postgres, database))
    assert db.get_pool().statistics() == {**db.get_pool().statistics(), "closed": 1, "in_use": 0}


# -- sessions stay as they were ----------------------------------------------------------------------


def test_isolation_is_of_a_transaction_and_defaults_are_the_server_s(
    proxied: Engine, postgres: Postgres, database: str, wire_proxy: WireProxy
) -> None:
    postgres.admin().execute(
        f"ALTER DATABASE {name_of(database)} SET default_transaction_isolation = 'repeatable read'"
    )
    value(proxied, PID)
    with wire_proxy.count() as count:
        for level in ("SERIALIZABLE", "READ COMMITTED"):
            with proxied.connect().execution_options(isolation_level=level) as connection:
                for _ in range(2):
                    assert connection.execute(LEVEL).scalar_one() == level.lower()
                    connection.commit()
        assert value(autocommit(proxied), LEVEL) == "repeatable read"
        assert value(proxied, LEVEL) == "repeatable read"
    assert count.flights == 2 * 2 * 2 + 1 + 2
    with proxied.connect() as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"
        assert connection.connection.dbapi_connection.in_transaction is False  # type: ignore[union-attr]
    assert db.fetch_value("SHOW transaction_isolation") == "repeatable read"


def test_autocommit_ends_with_its_loan(engine: Engine) -> None:
    with autocommit(engine).connect() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("INSERT INTO t VALUES (3)"))
        connection.rollback()
        connection = connection.execution_options(isolation_level="READ COMMITTED")
        connection.execute(text("INSERT INTO t VALUES (4)"))
        connection.rollback()
    assert [row["n"] for row in db.fetch_all("SELECT n FROM t ORDER BY n")] == [1, 3]


def test_read_only_is_of_a_transaction_and_costs_no_connection(engine: Engine) -> None:
    with engine.connect().execution_options(postgresql_readonly=True, postgresql_deferrable=True) as connection:
        assert connection.execute(text("SHOW transaction_deferrable")).scalar_one() == "on"
        with pytest.raises(sa.InternalError, match="read-only"):
            connection.execute(text("CREATE TABLE t (n int)"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))
    assert db.get_pool().statistics()["opened"] == 1


def test_nothing_is_prepared(engine: Engine) -> None:
    with engine.connect() as connection:
        for n in range(20):
            connection.execute(select(literal(n)))
        connection.execute(text("SELECT :n"), [{"n": n} for n in range(20)])
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() == 0


def test_through_pgbouncer_nothing_leaks_and_rows_are_one_s_own(
    use: Use, driver: str, database: str, any_pgbouncer: PgBouncer
) -> None:
    use(any_pgbouncer.url(database) + "?pgbouncer=true", DATABASE_POOL_MAX="8")
    engine = get_engine()
    levels = ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"]

    def work(me: int) -> None:
        for n in range(30):
            level = levels[(me + n) % 4]
            with engine.connect().execution_options(isolation_level=level) as connection:
                assert connection.execute(select(literal(me), literal(n))).one() == (me, n)
                if level != "AUTOCOMMIT":
                    with connection.begin_nested():
                        assert connection.execute(LEVEL).scalar_one() == level.lower()
                connection.commit()
                read_only = connection.execution_options(postgresql_readonly=bool(n % 2))
                assert read_only.execute(select(literal(n))).scalar_one() == n

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    for _ in range(6):  # more than PgBouncer has server connections
        assert db.fetch_value("SHOW transaction_isolation") == "read committed"
        assert db.fetch_value("SHOW default_transaction_read_only") == "off"
        assert db.fetch_value("SELECT count(*) FROM pg_prepared_statements") == 0
    with Session(engine) as session:
        rows = session.execute(select(func.generate_series(1, 50).column_valued()).execution_options(yield_per=20))
        assert len(list(rows)) == 50


def test_through_pgbouncer_it_costs_the_same(use: Use, driver: str, database: str, any_pgbouncer: PgBouncer) -> None:
    with WireProxy("127.0.0.1", any_pgbouncer.port) as proxy:
        use(proxy.url(any_pgbouncer.url(database)) + "?pgbouncer=true", DATABASE_DISABLE_SSL="true")
        engine = get_engine()
        with proxy.count() as count:
            assert value(autocommit(engine), select(literal(1))) == 1
        assert count.flights == 3 + 1
        with proxy.count() as count:
            for n in range(20):
                assert value(autocommit(engine), select(literal(n))) == n
        assert count.flights == 20
        with proxy.count() as count, engine.begin() as connection:
            connection.execute(select(literal(1)))
            connection.execute(text("SELECT 2"))
        assert count.flights == 2 + 1
        db.close_db()


# -- disconnects -------------------------------------------------------------------------------------


def test_an_error_before_anything_is_sent_costs_nothing(engine: Engine) -> None:
    statement, wrong = {
        "psycopg": ("SELECT :value", object()),
        "pg8000": ("SELECT 5 % 3 WHERE :value = 1", 1),  # its lone %
    }[engine.dialect.driver]
    with engine.begin() as connection:
        connection.execute(PID)
        with pytest.raises(sa.DBAPIError) as caught:
            connection.execute(text(statement), {"value": wrong})
        assert not caught.value.connection_invalidated
        assert connection.execute(PID)
    with engine.begin() as connection:
        with pytest.raises(UnicodeEncodeError):
            connection.execute(text("SELECT :value"), {"value": "half \ud800"})
        assert connection.execute(PID)
    assert db.get_pool().statistics()["opened"] == 1


def test_a_backend_that_is_terminated_invalidates_its_connection(
    engine: Engine, postgres: Postgres, database: str
) -> None:
    with engine.connect() as connection:
        pid = connection.execute(PID).scalar_one()
        terminate(postgres, pid)
        with pytest.raises(sa.DBAPIError) as caught:
            connection.execute(PID)
        assert caught.value.connection_invalidated
        assert connection.invalidated
        connection.rollback()
        assert connection.execute(PID).scalar_one() != pid
    assert db.get_pool().statistics() == {**db.get_pool().statistics(), "opened": 2, "closed": 1, "in_use": 0}


def test_an_idle_one_that_was_terminated_is_not_lent(engine: Engine, postgres: Postgres, database: str) -> None:
    terminate(postgres, value(engine, PID))
    assert value(engine, text("SELECT 1")) == 1


def test_one_that_leads_to_a_server_without_writes_is_discarded(
    engine: Engine, postgres: Postgres, database: str
) -> None:
    """After a failover it would be the old primary."""
    setting = f"ALTER DATABASE {name_of(database)} SET default_transaction_read_only = "
    postgres.admin().execute(setting + "on")
    with engine.connect() as connection, pytest.raises(sa.InternalError) as caught:
        connection.execute(text("CREATE TABLE t (n int)"))
    assert caught.value.connection_invalidated
    postgres.admin().execute(setting + "off")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n int)"))


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_connection_that_is_cut_in_a_statement_is_discarded(proxied: Engine, wire_proxy: WireProxy, how: Any) -> None:
    value(proxied, PID)
    wire_proxy.on("client", b"cut here", do=how, when="after")
    with pytest.raises(sa.DBAPIError) as caught, Session(proxied) as session:
        session.execute(text("SELECT 'cut here', pg_sleep(0.2)"))
    assert caught.value.connection_invalidated
    assert value(proxied, text("SELECT 1")) == 1
    assert db.get_pool().statistics() == {**db.get_pool().statistics(), "opened": 2, "closed": 1, "in_use": 0}


def test_a_stream_that_is_cut_is_discarded(proxied: Engine, wire_proxy: WireProxy) -> None:
    with proxied.connect() as connection:
        rows = connection.execute(text("SELECT generate_series(1, 9999)").execution_options(yield_per=10))
        rows.fetchone()
        wire_proxy.cut("rst")
        with pytest.raises(sa.DBAPIError) as caught:
            rows.fetchall()
        assert caught.value.connection_invalidated
    assert db.get_pool().statistics()["closed"] == 1


def test_a_database_that_cannot_be_reached_is_sqlalchemy_s_error(proxied: Engine, wire_proxy: WireProxy) -> None:
    wire_proxy.refuse()
    with pytest.raises(sa.OperationalError) as caught, deadline.within(0.5):
        proxied.connect()
    assert caught.value.orig is not None
    assert isinstance(caught.value.orig.__cause__, DatabaseUnavailable)
    wire_proxy.accept()
    assert value(proxied, text("SELECT 1")) == 1


def test_a_wrong_variable_is_our_own_error(use: Use, database: str) -> None:
    use(database, DATABASE_POOL_MAX="many")
    with pytest.raises(ConfigurationError):
        get_engine()


# -- limits ------------------------------------------------------------------------------------------


def test_when_all_are_in_use_it_says_who_holds_one(use: Use, driver: str, database: str) -> None:
    use(database, DATABASE_POOL_MAX="1")
    engine = get_engine()
    db.get_pool().timeout = 0.1
    with engine.connect() as connection:
        connection.execute(PID)
        with pytest.raises(sa.TimeoutError, match="test_when_all_are_in_use") as caught:
            engine.connect()
    assert isinstance(caught.value.__cause__, PoolTimeout)
    assert value(engine, text("SELECT 1")) == 1


def test_the_pool_s_limit_holds_for_threads(use: Use, driver: str, database: str, postgres: Postgres) -> None:
    use(database, DATABASE_POOL_MAX="3")
    engine = get_engine()
    db.execute("CREATE TABLE t (n int)")

    def work(me: int) -> int:
        for _ in range(20):
            with engine.begin() as connection:
                assert connection.execute(select(literal(me))).scalar_one() == me
                connection.execute(text("INSERT INTO t VALUES (:me)"), {"me": me})
            assert db.fetch_value("SELECT %(me)s::int", {"me": me}) == me
        return len(sessions(postgres, database)) if me == 0 else 0

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(work, range(8))) <= 3
    assert db.fetch_value("SELECT count(*) FROM t") == 160
    assert db.get_pool().statistics()["opened"] <= 3


def test_threads_share_one_engine(use: Use, database: str) -> None:
    use(database)
    with ThreadPoolExecutor(8) as threads:
        assert len({id(engine) for engine in threads.map(lambda _: get_engine(), range(8))}) == 1


@pytest.mark.parametrize("how", ["first", "second", "autocommit", "stream"])
def test_a_deadline_cancels_the_statement(engine: Engine, postgres: Postgres, database: str, how: str) -> None:
    begun = time.monotonic()
    chosen = autocommit(engine) if how == "autocommit" else engine
    with chosen.connect() as connection:
        if how == "second":
            connection.execute(PID)
        with deadline.within(0.2), pytest.raises(sa.OperationalError, match="longer than the time") as caught:
            list(connection.execute(SLOW.execution_options(yield_per=1) if how == "stream" else SLOW))
    assert time.monotonic() - begun < LATE
    assert caught.value.orig is not None
    assert isinstance(caught.value.orig.__cause__, DeadlineExceeded)
    until(lambda: not running(postgres, database, "pg_sleep"))
    assert value(engine, text("SELECT 1")) == 1
    assert db.get_pool().statistics()["in_use"] == 0


def test_after_the_deadline_nothing_is_sent_but_the_rollback(proxied: Engine, wire_proxy: WireProxy) -> None:
    with deadline.within(LATE), proxied.connect() as connection:
        connection.execute(PID)
        with wire_proxy.count() as count, deadline.within(0):
            with pytest.raises(sa.OperationalError, match="used up") as caught:
                connection.execute(PID)
            assert count.flights == 0
            connection.rollback()
        assert count.flights == 1
        assert not caught.value.connection_invalidated
        connection.execute(PID)
    with deadline.within(0), pytest.raises(sa.OperationalError, match="used up"):
        proxied.connect()


# -- the life of a process ---------------------------------------------------------------------------


def test_an_engine_outlives_close_db(use: Use, database: str) -> None:
    use(database)
    engine = get_engine()
    first = value(engine, PID)
    held = engine.connect()
    assert held.execute(PID).scalar_one() == first
    db.close_db(grace=0.1)  # cancels, and what is in use is closed when it comes back
    held.close()
    assert value(engine, PID) != first
    assert db.get_pool().statistics() == {**db.get_pool().statistics(), "opened": 1, "idle": 1}


FORKING = """
import json, os, sys
from sqlalchemy import text
from shared import db
from shared.db.orm import get_engine

PID = text("SELECT pg_backend_pid()")
engine = get_engine()
held = engine.connect()
parent = held.execute(PID).scalar_one()
child = os.fork()
if child == 0:
    with engine.connect() as connection:
        own = connection.execute(PID).scalar_one()
    try:
        held.execute(PID)
    except Exception as error:
        said = str(error).splitlines()[0]
    held.close()
    print(json.dumps([own, said]), flush=True)
    db.close_db()
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps([parent, held.execute(PID).scalar_one()]))
held.close()
db.close_db()
"""


def test_a_forked_child_has_connections_of_its_own(database: str, driver: str) -> None:
    (own, said), (parent, afterwards) = map(json.loads, run_program(FORKING, database, driver).splitlines())
    assert own != parent == afterwards
    assert "belongs to the parent process" in said


def test_no_secret_is_shown(use: Use, driver: str, postgres: Postgres, database: str) -> None:
    use(f"postgresql://app:s3cretpw@127.0.0.1:{postgres.port}/{name_of(database)}")
    engine = get_engine()
    with pytest.raises(sa.OperationalError, match="password authentication failed") as caught:
        engine.connect()
    link: BaseException | None = caught.value
    assert "s3cretpw" not in repr(engine)
    while link is not None:
        assert "s3cretpw" not in f"{link} {link!r} {vars(link)}"
        link = link.__cause__

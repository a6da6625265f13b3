"""Failures of statements, and of the connection in the middle of one."""

import os
import signal
import threading
from contextlib import suppress

import psycopg
from sqlalchemy import QueuePool, create_engine

from shared import deadline
from shared.db.pool import Pool
from tests.servers.proxy import WireProxy
from tests.servers.proxy_link import Do, When
from tests.shared.db.clients import CLIENTS, for_pg8000, for_psycopg
from tests.shared.db.provoke import OURS, STOCK_PG8000, Attempt, Stage, provokes
from tests.shared.db.provoke_connecting import proxied
from tests.shared.db.watching import until


def _run(stage: Stage, attempt: Attempt, *statements: str, user: str = "app") -> None:
    session = attempt.connect(stage.url(user))
    for statement in statements:
        session.run(statement)


def _holder(stage: Stage, attempt: Attempt, *statements: str) -> "psycopg.Connection[tuple[object, ...]]":
    """Give another session, in which these statements have run, and none is committed."""
    connection = psycopg.connect(stage.strict.url("app"))
    attempt.defer(connection.close)
    for statement in statements:
        connection.execute(statement.encode())
    return connection


def _until_gone(stage: Stage, pid: int) -> None:
    query = f"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}".encode()
    until(lambda: stage.strict.admin().execute(query).fetchone() == (True,))


def _pid(stage: Stage, statement: str) -> int:
    """Find the session whose last statement was this one."""
    query = "SELECT pid FROM pg_stat_activity WHERE query = %s"
    row = until(lambda: stage.strict.admin().execute(query, [statement]).fetchone())
    assert row is not None
    return int(row[0])


# -- the server ends the connection -----------------------------------------------------------------


@provokes("admin_shutdown")
def terminated_in_a_query(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SELECT pg_terminate_backend(pg_backend_pid())")


@provokes("admin_shutdown")
def terminated_while_idle(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    mark = f"SELECT 'idle {attempt.client.name}'"
    session.run(mark)
    stage.strict.admin().execute("SELECT pg_terminate_backend(%s, 5000)", [_pid(stage, mark)])
    session.run("SELECT 1")


@provokes("idle_session_timeout")
def idle_session(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    mark = f"SET idle_session_timeout = 50 /* {attempt.client.name} */"
    session.run(mark)
    with suppress(AssertionError):
        _until_gone(stage, _pid(stage, mark))
    session.run("SELECT 1")


@provokes("idle_in_transaction_session_timeout")
def idle_in_transaction(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    session.run("BEGIN")
    mark = f"SET LOCAL idle_in_transaction_session_timeout = 50 /* {attempt.client.name} */"
    session.run(mark)
    _until_gone(stage, _pid(stage, mark))
    session.run("SELECT 1")


@provokes("disk_full")
def no_space_left(stage: Stage, attempt: Attempt) -> None:
    with psycopg.connect(stage.strict.admin_url("app"), autocommit=True) as admin:
        admin.execute("GRANT EXECUTE ON FUNCTION lo_export(oid, text) TO app")
    make = "SELECT lo_from_bytea(1, repeat('x', 10000)::bytea)"
    _run(stage, attempt, "BEGIN", make, "SELECT lo_export(1, '/dev/full')")


@provokes("transaction_timeout")
def long_transaction(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SET transaction_timeout = 50", "BEGIN", "SELECT pg_sleep(5)")


@provokes("database_dropped")
def dropped_on_the_primary(stage: Stage, attempt: Attempt) -> None:
    standby, name = stage.standby, f"dropped_{attempt.client.name}"
    stage.strict.create_database(name)
    present = "SELECT count(*) FROM pg_database WHERE datname = %s"
    until(lambda: standby.admin().execute(present, [name]).fetchone() == (1,))
    session = attempt.connect(stage.at(standby, database=name))
    session.run("SELECT 1")
    stage.strict.admin().execute(f'DROP DATABASE "{name}"'.encode())
    until(lambda: standby.admin().execute(present, [name]).fetchone() == (0,))
    session.run("SELECT 1")


@provokes("connection_failure", is_slow=True)
def a_crash(stage: Stage, attempt: Attempt) -> None:
    _crashing.append(stage)
    session = attempt.connect(stage.url())
    session.run("SELECT 1")
    _all_connected.wait(timeout=10)
    session.run("SELECT 1")


def _crash() -> None:
    """Kill a backend: the server ends all the others, and recovers."""
    stage = _crashing[-1]
    with psycopg.connect(stage.strict.url("app"), autocommit=True) as victim, suppress(psycopg.OperationalError):
        watcher = psycopg.connect(stage.strict.admin_url(), autocommit=True)
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        until(lambda: watcher.execute("SELECT false") is None)
    watcher.close()
    # An old session may answer until it hears of the crash; a new one is let in when all of them are gone.
    until(lambda: _lets_in(stage))


def _lets_in(stage: Stage) -> bool:
    try:
        psycopg.connect(stage.strict.admin_url()).close()
    except psycopg.OperationalError:
        return False
    return True


_crashing: list[Stage] = []
_all_connected = threading.Barrier(len(CLIENTS), action=_crash)


# -- time and locks ---------------------------------------------------------------------------------


@provokes("statement_timeout")
def slow_statement(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SET statement_timeout = 50", "SELECT pg_sleep(5)")


@provokes("query_canceled")
def cancelled(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(1)")


@provokes("lock_timeout")
def lock_held(stage: Stage, attempt: Attempt) -> None:
    _holder(stage, attempt, "LOCK TABLE account")
    _run(stage, attempt, "SET lock_timeout = 50", "SELECT * FROM account")


@provokes("lock_not_available")
def nowait(stage: Stage, attempt: Attempt) -> None:
    _holder(stage, attempt, "SELECT * FROM account FOR UPDATE")
    _run(stage, attempt, "SELECT * FROM account FOR UPDATE NOWAIT")


@provokes("serialization_failure")
def lost_update(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
    session.run("SELECT * FROM account")
    _holder(stage, attempt, "UPDATE account SET balance = balance + 1").commit()
    session.run("UPDATE account SET balance = balance + 1")


@provokes("recovery_conflict")
def in_the_way_of_replay(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.at(stage.standby))
    mark = f"SELECT pg_sleep(5) FROM account /* {attempt.client.name} */"
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND wait_event = 'PgSleep'"

    def lock() -> None:
        until(lambda: stage.standby.admin().execute(asked, [mark]).fetchone() == (1,))
        with psycopg.connect(stage.strict.url("app")) as connection:
            connection.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
        stage.strict.admin().execute("SELECT pg_switch_wal()")  # the commit is asynchronous

    thread = threading.Thread(target=lock)
    thread.start()
    attempt.defer(thread.join)
    session.run(mark)


@provokes("deadlock_detected")
def deadlock(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    session.run("SET deadlock_timeout = 10")
    session.run("BEGIN")
    session.run("UPDATE account SET balance = 1 WHERE id = 1")
    other = _holder(
        stage, attempt, "SET LOCAL deadlock_timeout = '1min'", "UPDATE account SET balance = 1 WHERE id = 2"
    )
    crossing = "UPDATE account SET balance = 2 WHERE id = 1"
    thread = threading.Thread(target=_quietly, args=(other, crossing))
    thread.start()
    attempt.defer(thread.join)
    waiting = b"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    until(lambda: stage.strict.admin().execute(waiting).fetchone() == (1,))
    session.run("UPDATE account SET balance = 2 WHERE id = 2")


def _quietly(connection: "psycopg.Connection[tuple[object, ...]]", statement: str) -> None:
    with suppress(psycopg.Error):
        connection.execute(statement.encode())
        connection.rollback()


# -- standby and rights -----------------------------------------------------------------------------


@provokes("read_only_sql_transaction")
def write_on_a_standby(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at(stage.standby)).run("INSERT INTO account VALUES (3, 0)")


@provokes("read_only_sql_transaction")
def write_in_a_read_only_transaction(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SET default_transaction_read_only = on", "CREATE TABLE t ()")


@provokes("serializable_on_standby")
def serializable_on_a_standby(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.at(stage.standby))
    session.run("BEGIN ISOLATION LEVEL SERIALIZABLE")
    session.run("SELECT * FROM account")


@provokes("may_not_create_schema")
def create_schema(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "CREATE SCHEMA s", user="guest")


@provokes("may_not_create_table")
def create_table(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "CREATE TABLE t ()", user="guest")


@provokes("may_not_create_extension")
def create_extension(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "CREATE EXTENSION dblink", user="guest")


@provokes("insufficient_privilege")
def read_table(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SELECT * FROM account", user="guest")


@provokes("extension_not_available")
def absent_extension(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "CREATE EXTENSION no_such_extension")


@provokes("undefined_table")
def missing_table(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "SELECT * FROM notes")


@provokes("duplicate_prepared_statement")
def prepared_twice(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "PREPARE p AS SELECT 1", "PREPARE p AS SELECT 1")


@provokes("invalid_sql_statement_name")
def not_prepared(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "EXECUTE p")


@provokes("invalid_cursor_name")
def no_cursor(stage: Stage, attempt: Attempt) -> None:
    _run(stage, attempt, "FETCH FROM c")


# -- the connection, seen from here -----------------------------------------------------------------


def _cut(stage: Stage, attempt: Attempt, do: Do, when: When = "before") -> None:
    proxy = attempt.keep(WireProxy("127.0.0.1", stage.plain.port))
    url = stage.at(stage.plain, database="postgres", sslmode="disable")
    session = attempt.connect(proxied(url, proxy))
    proxy.on("client", b"4711", do=do, when=when)
    session.run("SELECT 4711")


@provokes("connection_failure")
def cut_by_fin(stage: Stage, attempt: Attempt) -> None:
    _cut(stage, attempt, "fin")


@provokes("connection_failure")
def cut_by_rst(stage: Stage, attempt: Attempt) -> None:
    _cut(stage, attempt, "rst", "answer")


@provokes("connection_failure")
def cut_under_tls(stage: Stage, attempt: Attempt) -> None:
    proxy = attempt.keep(WireProxy("127.0.0.1", stage.strict.port))
    session = attempt.connect(proxied(stage.url(sslmode="require"), proxy))
    proxy.cut("fin")
    session.run("SELECT 1")


@provokes("network_timeout", only=STOCK_PG8000, is_slow=True)
def stalled(stage: Stage, attempt: Attempt) -> None:
    _cut(stage, attempt, "black hole")


@provokes("deadline_exceeded", only=OURS)
def too_late(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    with deadline.within(0.1):
        session.run("SELECT pg_sleep(5)")


@provokes("connection_closed", only=("psycopg", "pg8000", *OURS))
def used_after_its_end(stage: Stage, attempt: Attempt) -> None:
    session = attempt.connect(stage.url())
    session.close()
    session.run("SELECT 1")


@provokes("pool_timeout", only=("sqlalchemy+psycopg", "sqlalchemy+pg8000"))
def full_alchemy_pool(stage: Stage, attempt: Attempt) -> None:
    attempt.url = stage.url()
    is_psycopg = attempt.client.driver == "psycopg"
    arguments = for_psycopg(attempt.url) if is_psycopg else for_pg8000(attempt.url)
    engine = create_engine(
        f"postgresql+{attempt.client.driver}://",
        poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.05, connect_args=arguments,
    )  # fmt: skip
    attempt.defer(engine.dispose)
    attempt.keep(engine.connect())
    attempt.keep(engine.connect())


def _pool(stage: Stage, attempt: Attempt) -> Pool:
    from shared.db.drivers import connect

    url = attempt.url = stage.url()
    driver = attempt.client.driver
    pool = Pool(lambda *_: connect(url, driver, connect_timeout=1), max_size=1, idle_timeout=10, timeout=15)
    attempt.defer(lambda: pool.close(0))
    return pool


@provokes("pool_timeout", only=OURS)
def full_pool(stage: Stage, attempt: Attempt) -> None:
    pool = _pool(stage, attempt)
    attempt.keep(pool.lease())
    attempt.keep(pool.lease(0.05))


@provokes("pool_closed", only=OURS)
def closed_pool(stage: Stage, attempt: Attempt) -> None:
    pool = _pool(stage, attempt)
    pool.close(0)
    attempt.keep(pool.lease())

"""What a connection asks of its session: the limits in force, its name, and what overrides them."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shared import db, errors
from shared.db import session
from shared.db.drivers import Connection
from shared.db.session import SessionLimits, application_name, limits, role_settings, startup_options
from tests.servers import pgbouncer as pgbouncers
from tests.servers import postgres as servers
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.watching import sessions, until

LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
IN_FORCE = """
    SELECT name, setting, source FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
                   'tcp_user_timeout')
"""


def in_force(connection: Connection) -> dict[str, str]:
    """Return the limits of a session, in milliseconds."""
    return {row["name"]: row["setting"] for row in connection.fetch(IN_FORCE)}


# -- the limits -------------------------------------------------------------------------------------


def test_the_limits_follow_from_the_request_and_the_idle_time() -> None:
    assert limits(request_timeout=25, idle_timeout=20) == SessionLimits(
        statement_timeout=27,
        lock_timeout=10,
        idle_in_transaction_session_timeout=22,
        idle_session_timeout=22,
        tcp_user_timeout=22,
    )
    assert limits(request_timeout=4, idle_timeout=20).lock_timeout == 4
    assert limits(request_timeout=0.5, idle_timeout=1.25).settings()["idle_session_timeout"] == "3250"


def test_they_are_in_force_on_every_version(use: Use, driver: str, any_database: str) -> None:
    use(any_database, REQUEST_TIMEOUT="8", DATABASE_POOL_IDLE_TIMEOUT="20", APP_ENV="production")

    with db.get_pool().lease() as connection:
        rows = connection.fetch(IN_FORCE)

    assert {row["name"]: int(row["setting"]) for row in rows} == {
        "statement_timeout": 10_000,
        "lock_timeout": 8_000,
        "idle_in_transaction_session_timeout": 22_000,
        "idle_session_timeout": 22_000,
        "tcp_user_timeout": 22_000,
    }
    assert {row["source"] for row in rows} == {"client"}


def test_the_urls_own_options_win(use: Use, driver: str, database: str) -> None:
    own = "-c%20statement_timeout%3D1234%20--lock-timeout%3D5s%20-c%20application_name%3Dmine"
    use(f"{database}?options={own}")

    with db.get_pool().lease() as connection:
        found = in_force(connection)
        assert (found["statement_timeout"], found["lock_timeout"]) == ("1234", "5000")
        assert found["idle_session_timeout"] == "12000"
        assert connection.fetch("SHOW application_name") == [{"application_name": "mine"}]
    assert db.get_connector().pooler == "none"


def test_they_override_the_roles_defaults(use: Use, database: str, postgres: Postgres) -> None:
    admin = postgres.admin()
    admin.execute("CREATE ROLE limited LOGIN PASSWORD 'limited' IN ROLE app")
    try:
        admin.execute("ALTER ROLE limited SET statement_timeout = '1ms'")
        use(re.sub(r"//.*@", "//limited:limited@", database))
        with db.get_pool().lease() as connection:
            assert in_force(connection)["statement_timeout"] == "27000"
        db.close_db()
    finally:
        admin.execute("DROP ROLE limited")


def test_a_limit_ends_what_it_says(use: Use, driver: str, database: str) -> None:
    use(f"{database}?options=-c%20statement_timeout%3D50")

    with pytest.raises(errors.QueryCanceled, match="statement timeout"):
        db.fetch_value("SELECT pg_sleep(10)")
    assert db.fetch_value("SELECT 1") == 1


@pytest.mark.parametrize("many", [False, True])
def test_a_transaction_that_is_left_after_its_first_statement_is_ended(
    use: Use, driver: str, database: str, postgres: Postgres, many: bool
) -> None:
    """BEGIN travels with it, and what comes behind them in the stream must not lift the limit."""
    use(f"{database}?options=-c%20idle_in_transaction_session_timeout%3D50")

    def leave() -> None:
        with db.transaction() as tx:
            if many:
                tx.execute_many("SELECT %(n)s::int", [{"n": 1}, {"n": 2}])
            else:
                tx.execute("SELECT 1")
            until(lambda: not sessions(postgres, database))

    with pytest.raises(errors.DatabaseUnavailable):
        leave()


@pytest.mark.parametrize(
    "value", ["plain", "two words", "tab\tand\nnewline", r"back\slash", 'quo\'te "double"', "-c x=1", "a=b", "€", ""]
)
def test_options_reach_the_server_unchanged(postgres: Postgres, value: str) -> None:
    # A placeholder setting takes any text.
    options = startup_options({"our.text": value, "our.other": "kept"}, "-c our.own=mine")
    with psycopg.connect(postgres.url("postgres"), options=options) as connection:
        row = connection.execute(
            "SELECT current_setting('our.text'), current_setting('our.other'), current_setting('our.own')"
        )
        assert row.fetchone() == (value, "kept", "mine")


# -- a Unix socket ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def socket_server(run_directory: Path) -> Iterator[Postgres]:
    """Run a server that listens on a Unix socket too; its path must be short."""
    directory = run_directory / "s"
    with servers.running(18, directory, {"unix_socket_directories": str(directory / "data")}) as server:
        yield server


def test_a_unix_socket_takes_them_too(use: Use, driver: str, socket_server: Postgres) -> None:
    with socket_server.database() as name:
        own = socket_server.server.data_dir
        url = socket_server.url(name).replace(f"127.0.0.1:{socket_server.port}", "")
        use(f"{url}?host={own}&port={socket_server.port}")
        with db.get_pool().lease() as connection:
            assert connection.fetch("SELECT inet_server_addr()::text AS address") == [{"address": None}]
            found = in_force(connection)
        db.close_db()

    assert found == {
        "statement_timeout": "27000",
        "lock_timeout": "10000",
        "idle_in_transaction_session_timeout": "12000",
        "idle_session_timeout": "12000",
        "tcp_user_timeout": "0",  # there is no TCP
    }


# -- the name ---------------------------------------------------------------------------------------


def name_in_force() -> Any:
    return db.fetch_value("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")


def test_an_instance_can_be_told_from_others(use: Use, driver: str, database: str) -> None:
    use(database)

    name = name_in_force()
    assert re.fullmatch(rf"{re.escape(socket.gethostname())[:40]}.*:{os.getpid()}/[0-9a-f]{{6}}", name)
    assert name == application_name()


@pytest.mark.parametrize(
    ("environ", "beginning"),
    [
        ({"AWS_LAMBDA_FUNCTION_NAME": "my-health"}, "my-health/"),
        ({"VERCEL": "1", "VERCEL_DEPLOYMENT_ID": "dpl_5Wx"}, "dpl_5Wx/"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f" * 64}, "f" * 50 + "/"),
    ],
)
def test_it_says_where_the_instance_runs(use: Use, database: str, environ: dict[str, str], beginning: str) -> None:
    use(database, **environ)

    assert name_in_force().startswith(beginning)
    assert db.get_connector().pooler == "none"


@pytest.mark.parametrize(
    ("own", "shown"),
    [("mine", "mine"), ("two words", "two words"), ("café \N{SNOWMAN}", "caf? ?"), ("x" * 70, "x" * 63)],
)
def test_the_urls_own_name_wins_as_far_as_the_server_keeps_it(
    use: Use, driver: str, any_database: str, own: str, shown: str
) -> None:
    use(f"{any_database}?application_name={own}")

    assert name_in_force() == shown
    assert db.get_connector().pooler == "none"  # and it is not mistaken for a proxy that drops options


def test_it_reaches_pg_stat_activity_through_a_pooler(
    use: Use, driver: str, database: str, any_pgbouncer: PgBouncer
) -> None:
    use(f"{any_pgbouncer.url(database)}?pgbouncer=true")

    assert name_in_force() == application_name()


def test_a_forked_child_has_a_name_of_its_own() -> None:
    program = """
import os
from shared.db.session import application_name
print(application_name(), flush=True)
if os.fork() == 0:
    print(application_name(), flush=True)
else:
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    parent, child = (name.rpartition("/")[2] for name in done.stdout.split())
    assert parent != child


# -- behind a transaction pooler --------------------------------------------------------------------


def test_the_sql_makes_them_the_roles_defaults(
    use: Use, driver: str, database: str, postgres: Postgres, pgbouncer: PgBouncer
) -> None:
    role, admin = 'od"d Role', postgres.admin()
    admin.execute('CREATE ROLE "od""d Role" LOGIN PASSWORD \'odd\' IN ROLE app')
    try:
        for statement in role_settings(limits(request_timeout=25, idle_timeout=20), role):
            admin.execute(statement.encode())
        url = re.sub(r"//.*@", "//od%22d%20Role:odd@", database)
        with closing(psycopg.connect(url)) as connection:
            found = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in LIMITS}
        assert found == {
            "statement_timeout": ("27s",),
            "lock_timeout": ("10s",),
            "idle_in_transaction_session_timeout": ("22s",),
            "idle_session_timeout": ("0",),  # the pooler's own connections may be idle for as long as it likes
        }
    finally:
        admin.execute('DROP ROLE "od""d Role"')


def test_a_proxy_that_drops_options_is_noticed(
    use: Use, driver: str, database: str, postgres: Postgres, run_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = {servers.APP: servers.APP_PASSWORD}
    settings = {"ignore_startup_parameters": "options"}
    with pgbouncers.running(
        "distribution", run_directory / f"dropping-{driver}", postgres.port, users, settings
    ) as pooler:
        use(pooler.url(database))
        assert db.fetch_value("SELECT 1") == 1

        assert db.get_connector().pooler == "transaction"
        assert [message for message in caplog.messages if "drops start-up options" in message]
        with closing(db.open_connection()) as second:
            assert second.parameter("application_name") == application_name()

        use(pooler.url(database) + "?schema=mine")
        with pytest.raises(errors.ConfigurationError, match="schema=mine"):
            db.fetch_value("SELECT 1")
        db.close_db()


# -- options of the socket --------------------------------------------------------------------------


def tcp_options(connection: Connection, driver: str) -> tuple[int, ...]:
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    with socket_of(connection, driver) as copy:
        alive = copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return (alive, *(copy.getsockopt(socket.IPPROTO_TCP, option) for option in options))


def socket_of(connection: Connection, driver: str) -> socket.socket:
    number = connection.raw.pgconn.socket if driver == "psycopg" else connection.raw._usock.fileno()
    return socket.socket(fileno=os.dup(number))


def test_we_notice_that_the_server_is_gone(use: Use, driver: str, database: str) -> None:
    use(database)
    with db.get_pool().lease() as connection:
        assert tcp_options(connection, driver) == (1, 15, 5, 3, 30_000)

    use(f"{database}?keepalives_idle=60&tcp_user_timeout=5000")
    with db.get_pool().lease() as connection:
        assert tcp_options(connection, driver) == (1, 60, 5, 3, 5_000)


def test_what_we_send_waits_for_no_acknowledgement(use: Use, driver: str, database: str) -> None:
    use(database)
    with db.get_pool().lease() as connection, socket_of(connection, driver) as copy:
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_none_of_it_costs_a_round_trip(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    with wire_proxy.count() as count, closing(db.open_connection()):
        pass
    assert count.flights == 3


def test_names_are_quoted() -> None:
    assert session.identifier('My "Schema"') == '"My ""Schema"""'

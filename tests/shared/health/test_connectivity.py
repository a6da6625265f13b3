"""Whether the database answers: told in time, whatever it does, and told anew when it is back."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared import db
from shared.health.connectivity import database_state
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy

PROMISE = 2.0  # seconds; what the endpoint answers in
SLOWNESS = 1.0  # seconds that a busy machine may add to it
WAIT = 30.0  # seconds until a thread that should have come counts as lost

Use = Callable[..., None]


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Assert that the block keeps the promise."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < PROMISE + SLOWNESS


@contextlib.contextmanager
def dropping_everything() -> Iterator[int]:
    """Give a port whose SYNs nobody answers: its queue of connections is full, and nobody takes any out."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        with socket.socket() as probe:
            probe.settimeout(0.2)
            with pytest.raises(TimeoutError):
                probe.connect(address)
        yield address[1]


def test_a_database_that_answers(use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database)

    assert database_state() == "connected"
    assert database_state() == "connected"
    assert db.get_pool().statistics()["opened"] == 1


def test_nobody_listens(use: Use, driver: str) -> None:
    use(DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/db")

    with in_time():
        assert database_state() != "connected"


@pytest.mark.parametrize(("driver", "hosts"), [("psycopg", 1), ("pg8000", 3)])
def test_somebody_listens_and_is_silent(use: Use, driver: str, hosts: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = ",".join([f"127.0.0.1:{listener.getsockname()[1]}"] * hosts)
        use(DATABASE_URL=f"postgresql://u:p@{silent}/db", DATABASE_DRIVER=driver)

        with in_time():
            assert database_state() != "connected"


def test_nothing_comes_back_at_all(use: Use) -> None:
    with dropping_everything() as port:
        use(DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/db")

        with in_time():
            assert database_state() != "connected"


def test_a_statement_is_not_answered(use: Use, database: str, wire_proxy: WireProxy) -> None:
    use(DATABASE_URL=wire_proxy.url(database))
    assert database_state() == "connected"

    wire_proxy.black_hole()  # the idle connection's; a new one would be answered

    with in_time():
        database_state()
    with in_time():
        assert database_state() == "connected"


@pytest.mark.parametrize(
    "variables",
    [
        {"APP_ENV": "production"},
        {"APP_ENV": "nonsense"},
        {"DATABASE_URL": "nonsense"},
        {"DATABASE_URL": "postgresql://u:p%@127.0.0.1/db"},
        {"DATABASE_SSL": "true", "DATABASE_DISABLE_SSL": "true"},
        {"DATABASE_POOL_MAX": "many"},
    ],
)
def test_the_configuration_is_wrong(use: Use, variables: dict[str, str]) -> None:
    use(**variables)

    with in_time():
        assert database_state() != "connected"


def test_the_password_is_wrong(use: Use, driver: str, postgres: Postgres) -> None:
    use(DATABASE_URL=f"postgresql://app:canary@127.0.0.1:{postgres.port}/postgres")

    with in_time():
        assert database_state() != "connected"


def test_a_slow_network_is_not_taken_for_a_dead_one(use: Use, database: str, wire_proxy: WireProxy) -> None:
    use(DATABASE_URL=wire_proxy.url(database))
    wire_proxy.delay = 0.06  # each way: half a second for the connection's four flights

    assert database_state() == "connected"


def test_a_busy_pool_is_not_a_database_that_is_down(use: Use, driver: str, database: str) -> None:
    use(DATABASE_URL=database, DATABASE_POOL_MAX="2")

    with db.transaction() as one, db.transaction() as two:
        assert one.fetch_value("SELECT 1") == two.fetch_value("SELECT 1") == 1
        with in_time():
            assert database_state() == "connected"
        assert db.get_pool().statistics()["opened"] == 2


def test_a_busy_pool_does_not_hide_a_database_that_is_down(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(DATABASE_URL=wire_proxy.url(database), DATABASE_POOL_MAX="1")

    with db.transaction() as tx:
        tx.execute("SELECT 1")
        wire_proxy.refuse()
        with in_time():
            assert database_state() != "connected"


def test_a_failure_is_not_remembered(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> None:
    use(DATABASE_URL=wire_proxy.url(database))
    assert database_state() == "connected"

    for _ in range(2):
        wire_proxy.refuse()
        wire_proxy.cut("rst")
        with in_time():
            assert database_state() != "connected"
        wire_proxy.accept()
        with in_time():
            assert database_state() == "connected"


def test_a_server_that_restarts(use: Use, own_postgres: Postgres) -> None:
    use(DATABASE_URL=own_postgres.admin_url())
    assert database_state() == "connected"

    own_postgres.server.stop()
    with in_time():
        assert database_state() != "connected"

    own_postgres.server.start(die_with_parent=True)
    with in_time():
        assert database_state() == "connected"
    db.close_db(grace=0)


def test_callers_that_come_together_share_a_check(use: Use, database: str, wire_proxy: WireProxy) -> None:
    use(DATABASE_URL=wire_proxy.url(database))
    wire_proxy.silence()
    callers = 12
    together = threading.Barrier(callers)

    def ask() -> bool:
        together.wait(WAIT)
        with in_time():
            return database_state() == "connected"

    with ThreadPoolExecutor(callers) as pool:
        answers = [answer.result() for answer in [pool.submit(ask) for _ in range(callers)]]

    assert answers == [False] * callers
    # Those who came after a check had begun share one more, since its failure may be older than they are.
    assert wire_proxy.total.connections <= 3


def test_an_answer_is_never_older_than_the_question(use: Use, database: str, wire_proxy: WireProxy) -> None:
    use(DATABASE_URL=wire_proxy.url(database))
    begun = wire_proxy.on("client", b"user\0", do="black hole")

    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(database_state)
        begun.wait()
        # The first check waits for an answer that will not come; a connection that is made now gets one.
        with in_time():
            assert database_state() == "connected"
        with in_time():
            early.result()


def test_a_silent_name_server_does_not_outlast_its_silence(
    use: Use, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(DATABASE_URL=database.replace("127.0.0.1", "localhost"))
    speak, asked = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def silent(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        speak.wait(WAIT)
        return resolve(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", silent)
        with in_time():
            assert database_state() != "connected"
        assert asked.is_set()

    # The first check's thread still hangs, and nothing can end it.
    try:
        with in_time():
            assert database_state() == "connected"
    finally:
        speak.set()


def test_it_leaves_no_thread_behind(use: Use, database: str) -> None:
    use(DATABASE_URL=database)
    assert database_state() == "connected"

    for thread in [thread for thread in threading.enumerate() if thread.name == "health"]:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_the_log_says_why_in_one_line(use: Use, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    use(DATABASE_URL=f"postgresql://u:canary@127.0.0.1:{port}/db")

    assert database_state() != "connected"

    (record,) = [record for record in caplog.records if record.name == "shared.health.connectivity"]
    assert record.levelname == "WARNING"
    assert str(port) in record.getMessage() or "refused" in record.getMessage()
    assert record.exc_info is None
    assert "canary" not in record.getMessage()


def test_it_does_not_write(use: Use, database: str) -> None:
    use(DATABASE_URL=f"{database}?options=-c%20default_transaction_read_only%3Don")

    assert database_state() == "connected"

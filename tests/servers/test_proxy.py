"""The wire proxy counts exactly, and its faults do what they say."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.process import through
from tests.servers.proxy import WireProxy
from tests.servers.proxy_link import Do, When
from tests.servers.tls import TLSPostgres


class Echo(socketserver.ThreadingTCPServer):
    """Send back every line; remember what came, as it came."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.received: list[bytes] = []
        super().__init__(("127.0.0.1", 0), EchoHandler)


class EchoHandler(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        line = b""
        try:
            while data := self.request.recv(65536):
                self.server.received.append(data)
                line += data
                if line.endswith(b"\n"):
                    self.request.sendall(line)
                    line = b""
        except ConnectionError:
            pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[WireProxy]:
    with WireProxy("127.0.0.1", echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: WireProxy) -> Iterator[socket.socket]:
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as client:
        yield client


def ask(client: socket.socket, line: bytes = b"hello\n") -> bytes:
    client.sendall(line)
    return receive(client, len(line))


def receive(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := client.recv(65536)):
        data += more
    return data


def is_silent(client: socket.socket) -> bool:
    client.settimeout(0.1)
    try:
        return client.recv(1) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)


# -- counting ---------------------------------------------------------------------------------------


def test_counts_what_passes(proxy: WireProxy, client: socket.socket) -> None:
    for _ in range(3):
        ask(client)
    with proxy.count() as passed:
        ask(client, b"x" * 99_999 + b"\n")
    assert (passed.flights, passed.connections) == (1, 0)
    assert (passed.bytes_from_client, passed.bytes_from_server) == (100_000, 100_000)
    assert (proxy.total.flights, proxy.total.connections) == (4, 1)
    assert proxy.links[0].count == proxy.total


def test_writes_without_waiting_are_one_flight(proxy: WireProxy, client: socket.socket, echo: Echo) -> None:
    proxy.settle = 0.2
    answered = proxy.on("server", b"1\n")
    client.sendall(b"1\n")
    answered.wait()
    client.sendall(b"2\n")  # the answer to 1 is there, but we did not wait for it
    assert receive(client, 4) == b"1\n2\n"
    assert proxy.total.flights == 1


def test_what_is_never_answered_is_no_flight(proxy: WireProxy, client: socket.socket) -> None:
    arrived = proxy.on("client", b"unfinished", when="after")
    client.sendall(b"unfinished")
    arrived.wait()
    assert proxy.total.flights == 0


@pytest.mark.parametrize(
    ("parameters", "flights"),
    [("sslmode=disable", 3), ("sslmode=require", 5), ("sslmode=require&sslnegotiation=direct", 4)],
    ids=["plain", "tls", "direct"],
)
def test_flights_of_psycopg(tls_postgres: TLSPostgres, parameters: str, flights: int) -> None:
    server = tls_postgres.postgres
    with WireProxy("127.0.0.1", server.port) as proxy:
        url = f"{proxy.url(server.admin_url())}?{parameters}"
        with proxy.count() as connecting, psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            pass
        assert (connecting.flights, connecting.connections) == (flights, 1)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            for number in range(8):
                with proxy.count() as reading:
                    connection.execute("SELECT %s::int", [number])
                assert reading.flights == 1
            with proxy.count() as transaction, connection.transaction():
                connection.execute("SELECT 1")
            assert transaction.flights == 3


def test_flights_through_a_pooler_with_tls(tls_pgbouncer: PgBouncer, database: str) -> None:
    """PgBouncer sends session tickets, which nobody waits for."""
    with WireProxy("127.0.0.1", tls_pgbouncer.port, settle=0) as proxy:
        url = proxy.url(database) + "?sslmode=require"
        for _ in range(5):
            with proxy.count() as connecting, psycopg.connect(url):
                pass
            assert connecting.flights == 5


def test_a_long_pipeline_is_one_flight(wire_proxy: WireProxy, database: str) -> None:
    wire_proxy.settle = 0.1
    url = wire_proxy.url(database) + "?sslmode=disable"
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        with wire_proxy.count() as passed, connection.pipeline():
            for _ in range(5):  # the server begins to answer when its buffer of 8 kB is full
                cursor.execute("SELECT repeat('x', 20000)")
        assert passed.flights == 1


# -- faults -----------------------------------------------------------------------------------------


def test_refuses_and_accepts_again(proxy: WireProxy, client: socket.socket) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port))
    assert ask(client) == b"hello\n"
    proxy.accept()
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as other:
        assert ask(other) == b"hello\n"


def test_accepts_and_is_silent(proxy: WireProxy, client: socket.socket, echo: Echo) -> None:
    proxy.silence()
    with socket.create_connection((proxy.host, proxy.port)) as other:
        taken = proxy.total.bytes_from_client
        other.sendall(b"hello\n")
        assert is_silent(other)
        assert proxy.total.bytes_from_client == taken + 6
    assert echo.received == []
    assert ask(client) == b"hello\n"


def test_a_black_hole_swallows_both_ways(proxy: WireProxy, client: socket.socket, echo: Echo) -> None:
    ask(client)
    proxy.black_hole()
    client.sendall(b"lost\n")
    assert is_silent(client)
    assert echo.received == [b"hello\n"]
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as other:
        assert ask(other) == b"hello\n"


def test_an_unplugged_connection_acknowledges_nothing(proxy: WireProxy, client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)  # ms
    ask(client)
    trap = proxy.on("client", b"unplug", do="unplug")
    client.sendall(b"unplug\n")
    trap.wait()
    client.sendall(b"lost\n")
    with pytest.raises(TimeoutError) as raised:
        client.recv(1)
    assert raised.value.errno == errno.ETIMEDOUT  # the kernel's word, not that of Python's own timeout


def test_a_pause_loses_nothing(proxy: WireProxy, client: socket.socket) -> None:
    ask(client)
    proxy.pause()
    client.sendall(b"later\n")
    assert is_silent(client)
    proxy.resume()
    assert receive(client, 6) == b"later\n"


def test_delays_each_way(proxy: WireProxy, client: socket.socket) -> None:
    ask(client)
    proxy.delay = 0.05
    start = time.monotonic()
    ask(client)
    assert time.monotonic() - start >= 0.1


def test_byte_by_byte(proxy: WireProxy, client: socket.socket, echo: Echo) -> None:
    proxy.byte_by_byte = True
    line = bytes(range(32, 127)) * 50 + b"\n"  # long enough for the server to get a turn while it comes
    assert ask(client, line) == line
    assert len(echo.received) > 1
    assert proxy.largest == 1


def test_cuts_with_fin_and_with_rst(proxy: WireProxy) -> None:
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as client:
        ask(client)
        proxy.cut("fin")
        assert client.recv(1) == b""
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as client:
        ask(client)
        proxy.cut("rst")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_cuts_after_so_many_bytes(proxy: WireProxy, client: socket.socket) -> None:
    ask(client)
    proxy.on("server", 10, do="fin")
    ask(client, b"1234\n")
    client.sendall(b"123456789\n")
    assert receive(client, 10) == b"12345"


def test_a_match_may_come_in_two_parts(proxy: WireProxy, client: socket.socket) -> None:
    trap = proxy.on("client", b"COMMIT", do="pause", when="after")
    first = proxy.on("client", b"COM", when="after")
    client.sendall(b"COM")
    first.wait()
    assert not trap.event.is_set()
    client.sendall(b"MIT\n")
    trap.wait()
    proxy.resume()
    assert receive(client, 7) == b"COMMIT\n"


def test_a_trap_that_does_not_spring_is_an_error(proxy: WireProxy) -> None:
    with pytest.raises(TimeoutError, match="saw no b'COMMIT' from the client"):
        proxy.on("client", b"COMMIT").wait(0.01)


@pytest.mark.parametrize("do", ["fin", "rst"])
@pytest.mark.parametrize(("when", "committed"), [("before", False), ("after", True), ("answer", True)])
def test_cuts_around_a_commit(
    wire_proxy: WireProxy, postgres: Postgres, database: str, do: Do, when: When, committed: bool
) -> None:
    with psycopg.connect(database, autocommit=True) as direct:
        direct.execute("CREATE TABLE ledger (id int)")
        with psycopg.connect(wire_proxy.url(database)) as connection:
            connection.execute("INSERT INTO ledger VALUES (1)")
            wire_proxy.delay = 0.01  # so that COMMIT is on the way when the connection is cut
            trap = wire_proxy.on("client", b"COMMIT", do=do, when=when)
            with pytest.raises(psycopg.OperationalError):
                connection.commit()
            trap.wait()
        deadline = time.monotonic() + 10
        while direct.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").fetchone() != (
            1,
        ):
            assert time.monotonic() < deadline, "the server did not notice"
        assert direct.execute("SELECT count(*) FROM ledger").fetchone() == (int(committed),)


def test_a_new_target_is_for_new_connections(wire_proxy: WireProxy, database: str, any_postgres: Postgres) -> None:
    with psycopg.connect(wire_proxy.url(database), autocommit=True) as connection:
        wire_proxy.target = ("127.0.0.1", any_postgres.port)
        with psycopg.connect(through(any_postgres.admin_url(), wire_proxy.port)) as other:
            assert other.info.server_version // 10000 == any_postgres.major
        assert connection.info.server_version // 10000 == 18


def test_a_slow_reader_is_felt_by_its_writer(wire_proxy: WireProxy, database: str) -> None:
    """What a frozen client leaves on the server: a backend that waits for it, not a proxy that took all."""
    with (
        psycopg.connect(database, autocommit=True) as direct,
        closing(psycopg.connect(wire_proxy.url(database))) as reader,
    ):
        reader.pgconn.send_query(b"SELECT repeat('x', 100000) FROM generate_series(1, 1000)")
        waiting = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {reader.info.backend_pid}".encode()
        passed = -1
        deadline = time.monotonic() + 30
        while passed != (passed := wire_proxy.total.bytes_from_server) or (
            direct.execute(waiting).fetchone() != ("ClientWrite",)
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert passed < 50_000_000
        wire_proxy.cut("rst")

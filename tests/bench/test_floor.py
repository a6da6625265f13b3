"""The raw-protocol client: a floor only while it makes as few flights as the bench says, and reads what is there."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from bench.floor import Floor
from bench.peers import Distance
from tests.servers.proxy import WireProxy
from tests.servers.tls import TLSPostgres

SQL = "SELECT $1::text, NULL, 'é', repeat('x', 100000)"
ROW = ["1", None, "é", "x" * 100_000]


def test_it_needs_two_flights_to_the_first_row_and_one_for_each_more(database: str, wire_proxy: WireProxy) -> None:
    with closing(Floor(wire_proxy.url(database), SQL)) as floor:
        with wire_proxy.count() as first:
            assert floor.read("1") == ROW
        with wire_proxy.count() as warm:
            assert [floor.read("2")[0], floor.read("")[0]] == ["2", ""]
    assert (first.flights, warm.flights) == (2, 2)


@pytest.fixture
def tls_proxy(tls_postgres: TLSPostgres) -> Iterator[WireProxy]:
    with WireProxy("127.0.0.1", tls_postgres.postgres.port) as proxy:
        yield proxy


def test_tls_takes_a_third(tls_postgres: TLSPostgres, tls_proxy: WireProxy) -> None:
    with tls_postgres.postgres.database() as name:
        url = f"{tls_proxy.url(tls_postgres.postgres.url(name))}?sslmode=require"
        with closing(Floor(url, "SELECT ssl, $1::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()")) as floor:
            with tls_proxy.count() as first:
                assert floor.read("1") == ["t", "1"]
            with tls_proxy.count() as warm:
                assert floor.read("2") == ["t", "2"]
    assert (first.flights, warm.flights) == (3, 1)


def test_what_is_no_row_is_an_error(database: str) -> None:
    user, _, rest = database.rpartition("@")
    for url, sql, says in (
        (f"{user.rpartition(':')[0]}:wrong@{rest}", SQL, "password authentication failed"),
        (database, "SELECT 1 / $1::int", "division by zero"),
        (database, "SELECT $1::text WHERE false", "answers b'Z'"),
    ):
        with closing(Floor(url, sql)) as floor, pytest.raises(OSError, match=says):
            floor.read("0")


def test_at_a_distance_tcp_takes_its_round_trip_too(database: str, wire_proxy: WireProxy) -> None:
    with Distance(*wire_proxy.target, settle=0.0) as far:
        far.delay = 0.02
        with closing(Floor(far.url(database), SQL)) as floor:
            begun = far.loop.time()
            with far.count() as first:
                floor.read("1")
            assert first.flights == 2
            assert far.loop.time() - begun >= 3 * 2 * far.delay

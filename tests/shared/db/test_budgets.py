"""Round trips, counted on the wire: what each thing may cost, for both drivers, directly and through PgBouncer."""

from contextlib import closing

import pytest

from shared import db
from tests.servers.pgbouncer import PgBouncer
from tests.servers.proxy import WireProxy
from tests.servers.tls import TLSPostgres
from tests.shared.db.conftest import Use

CONNECT = 3  # start-up packet, two messages of SCRAM
READ = "SELECT %(n)s::int AS n"


@pytest.fixture
def direct(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> WireProxy:
    """Count between `shared.db` and the server, without TLS: its own request for it would be one more."""
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    return wire_proxy


def test_connecting_and_the_first_row_cost_four(direct: WireProxy) -> None:
    with direct.count() as count:
        assert db.fetch_value(READ, {"n": 7}) == 7
    assert count.flights == CONNECT + 1


def test_a_warm_read_costs_one_for_ever(direct: WireProxy) -> None:
    db.fetch_value(READ, {"n": 0})
    with direct.count() as count:
        for n in range(1000):
            assert db.fetch_one(READ, {"n": n}) == {"n": n}
    assert (count.flights, count.connections) == (1000, 0)


def test_a_read_without_parameters_costs_one(direct: WireProxy) -> None:
    db.fetch_value("SELECT 1")
    with direct.count() as count:
        assert db.fetch_all("SELECT 1 AS n UNION SELECT 2 ORDER BY 1") == [{"n": 1}, {"n": 2}]
    assert count.flights == 1


def test_a_transaction_of_n_statements_costs_n_and_its_commit(direct: WireProxy) -> None:
    db.execute("CREATE TABLE t (n int)")
    with direct.count() as count, db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (%(n)s)", {"n": 1})
        tx.execute("INSERT INTO t VALUES (2)")
        assert tx.fetch_value("SELECT count(*) FROM t WHERE n = ANY(%(ids)s)", {"ids": [1, 2]}) == 2
    assert count.flights == 3 + 1
    assert db.fetch_value("SELECT count(*) FROM t") == 2


def test_a_transaction_without_a_statement_costs_nothing(direct: WireProxy) -> None:
    db.fetch_value("SELECT 1")
    with direct.count() as count, db.transaction():
        pass
    assert count.flights == 0


def test_a_stream_costs_one_a_batch(direct: WireProxy) -> None:
    db.fetch_value("SELECT 1")
    with direct.count() as count:
        rows = list(db.stream("SELECT g FROM generate_series(1, %(n)s) AS g", {"n": 25}, batch=10))
    assert [row["g"] for row in rows] == list(range(1, 26))
    declare, batches, close, commit = 1, 3, 1, 1
    assert count.flights == declare + batches + close + commit


def test_many_rows_cost_two_with_psycopg(use: Use, database: str, wire_proxy: WireProxy) -> None:
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    db.execute("CREATE TABLE t (n int)")
    with wire_proxy.count() as count:
        assert db.execute_many("INSERT INTO t VALUES (%(n)s)", [{"n": n} for n in range(100)]) == 100
    assert count.flights == 2
    assert db.fetch_value("SELECT sum(n)::int FROM t") == 4950


def test_a_suspect_connection_costs_one_ping(direct: WireProxy) -> None:
    with db.get_pool().lease() as first, db.get_pool().lease() as second:
        first.execute("SELECT 1")
        second.execute("SELECT 1")
    pool = db.get_pool()
    for entry in pool._idle:
        entry.suspect = True
    with direct.count() as count:
        db.fetch_value("SELECT 1")
        db.fetch_value("SELECT 1")
    assert count.flights == 3  # the same connection both times, pinged once


def test_through_pgbouncer_it_costs_the_same(use: Use, driver: str, database: str, any_pgbouncer: PgBouncer) -> None:
    with WireProxy("127.0.0.1", any_pgbouncer.port) as proxy:
        use(proxy.url(any_pgbouncer.url(database)) + "?pgbouncer=true", DATABASE_DISABLE_SSL="true")
        with proxy.count() as count:
            db.fetch_value(READ, {"n": 1})
        assert count.flights == CONNECT + 1
        with proxy.count() as count:
            for n in range(50):
                assert db.fetch_value(READ, {"n": n}) == n
        assert count.flights == 50
        with proxy.count() as count, db.transaction() as tx:
            tx.fetch_value(READ, {"n": 1})
            tx.fetch_value("SELECT 1")
        assert count.flights == 3
        db.close_db()


def test_tls_costs_two_more_and_one_less_once_the_server_is_known(use: Use, tls_postgres: TLSPostgres) -> None:
    with tls_postgres.postgres.database() as name, WireProxy("127.0.0.1", tls_postgres.postgres.port) as proxy:
        use(proxy.url(tls_postgres.postgres.url(name)) + "?sslmode=require")
        with proxy.count() as count, closing(db.open_connection()):
            pass
        assert count.flights == CONNECT + 2
        with proxy.count() as count, closing(db.open_connection()):
            pass
        assert count.flights == CONNECT + 1
        db.close_db()


def test_tls_with_pg8000_costs_two_more(use: Use, tls_postgres: TLSPostgres) -> None:
    with tls_postgres.postgres.database() as name, WireProxy("127.0.0.1", tls_postgres.postgres.port) as proxy:
        use(proxy.url(tls_postgres.postgres.url(name)) + "?sslmode=require", DATABASE_DRIVER="pg8000")
        with proxy.count() as count, closing(db.open_connection()):
            pass
        assert count.flights == CONNECT + 2
        db.close_db()

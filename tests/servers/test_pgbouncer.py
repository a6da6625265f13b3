"""The test PgBouncers pool transactions, as the ones of providers do."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg.errors import DuplicatePreparedStatement

from tests.servers.pgbouncer import PgBouncer


def test_clients_share_servers(any_pgbouncer: PgBouncer, database: str) -> None:
    url = any_pgbouncer.url(database)
    clients = [psycopg.connect(url, autocommit=True) for _ in range(8)]
    pids = [client.execute("SELECT pg_backend_pid()").fetchone() for client in clients]
    for client in clients:
        client.close()
    assert len(set(pids)) <= 3


def test_prepared_statements_are_known_from_1_21_on(any_pgbouncer: PgBouncer, database: str) -> None:
    url = any_pgbouncer.url(database)
    with psycopg.connect(url, autocommit=True) as first, psycopg.connect(url, autocommit=True) as second:
        first.execute("SELECT %s::int", [1], prepare=True)
        if any_pgbouncer.version < (1, 21, 0):
            with pytest.raises(DuplicatePreparedStatement):
                second.execute("SELECT %s::int + 1", [1], prepare=True)
        else:
            assert second.execute("SELECT %s::int + 1", [1], prepare=True).fetchone() == (2,)


def test_the_console_pauses_a_pool(any_pgbouncer: PgBouncer, database: str) -> None:
    name = database.rpartition("/")[2]
    with psycopg.connect(any_pgbouncer.url(database), autocommit=True) as client:
        client.execute("SELECT 1")
        any_pgbouncer.console(f"PAUSE {name}")
        answered = threading.Event()

        def ask() -> None:
            client.execute("SELECT 1")
            answered.set()

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 10
        while not any(pool["database"] == name and pool["cl_waiting"] for pool in any_pgbouncer.console("SHOW POOLS")):
            assert time.monotonic() < deadline
        assert not answered.is_set()
        any_pgbouncer.console(f"RESUME {name}")
        asking.join(10)
        assert answered.is_set()

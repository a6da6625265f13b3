"""Databases in the states that the page shows: well, in trouble, without samples, with names as nobody wants them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migrations import runner
from shared.settings import reset_settings
from tests.servers import binaries
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of, until

# What a server in production has, where that of other tests is in a hurry.
SETTINGS = {
    "max_connections": "60",
    "autovacuum_naptime": "1h",
    "shared_preload_libraries": "pg_stat_statements",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}
TEMPLATE = "template"

_SHOP = """
CREATE TABLE customers (id bigint PRIMARY KEY, email text);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint REFERENCES customers, total numeric);
CREATE INDEX orders_customer_id_idx ON orders (customer_id);
INSERT INTO customers SELECT n, 'customer' || n || '@example.com' FROM generate_series(1, 5000) AS n;
INSERT INTO orders (customer_id, total) SELECT 1 + n % 5000, n % 97 FROM generate_series(1, 60000) AS n;
"""
# A month of samples, one every five minutes: days and weeks in them, growth, a short trouble, and a gap.
_SAMPLES = """
INSERT INTO health_samples (taken_at, status, numbers, told)
SELECT at, CASE WHEN hours BETWEEN 9.2 AND 9.7 THEN 'fail' WHEN hours BETWEEN 9 AND 10.5 THEN 'warn' ELSE 'ok' END,
    jsonb_build_object(
        'connections', round((26 + 14 * sin(hours / 24 * 2 * pi()) + 9 * noise
            + CASE WHEN hours BETWEEN 9 AND 10.5 THEN 50 ELSE 0 END)::numeric, 1),
        'pool', 20 * floor(3.2 * noise + CASE WHEN hours BETWEEN 9 AND 10.5 THEN 2 ELSE 0 END),
        'database_size', round(15.3e6 - hours * 6e3 + 8e4 * noise)),
    true
FROM (
    SELECT at, hours, (abs(sin(floor(hours * 1.7) * 12.9898) * 43758.5453)::numeric % 1)::float8 AS noise
    FROM generate_series(date_trunc('minute', now()) - interval '30 days', now(), interval '5 minutes') AS at,
        LATERAL (SELECT extract(epoch FROM now() - at)::float8 / 3600 AS hours) AS ago
) AS samples
WHERE hours NOT BETWEEN 15 AND 16.5 AND hours NOT BETWEEN 300 AND 340
ON CONFLICT DO NOTHING
"""

LONG = "a_table_with_a_name_of_63_bytes_which_is_all_that_postgres_take"
NAMES = (LONG, "<script>alert('table')</script>", "טבלה של הזמנות", "جدول 🐘 with \"quotes\" & 'more'")
APPLICATION = "<img src=x onerror=alert('application')>"


@contextmanager
def server(directory: Path) -> Iterator[Postgres]:
    """Run a server with the migrated database TEMPLATE, to make others from."""
    with servers.running(binaries.MAJORS[-1], directory, SETTINGS) as postgres:
        postgres.create_database(TEMPLATE)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("DATABASE_URL", postgres.url(TEMPLATE))
            monkeypatch.setenv("APP_ENV", "test")
            reset_settings()
            runner.deploy(report=lambda _: None)
        reset_settings()
        run(postgres.url(TEMPLATE), _SHOP)
        run(postgres.admin_url(TEMPLATE), "CREATE EXTENSION pg_stat_statements; GRANT pg_monitor TO app")
        yield postgres


@contextmanager
def database(postgres: Postgres, name: str, *, samples: bool = True) -> Iterator[str]:
    """Make a database of a shop in which all is well, give its URL, and remove it with whoever is connected."""
    postgres.create_database(name, TEMPLATE)
    try:
        if samples:
            run(postgres.url(name), _SAMPLES)
        run(postgres.url(name), "ANALYZE")
        yield postgres.url(name)
    finally:
        postgres.admin().execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def in_trouble(postgres: Postgres, url: str) -> Iterator[None]:
    """Have a sequence near its end, an index there twice, and three sessions wait for one another."""
    broken = "CREATE TABLE tickets (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)"
    run(
        url,
        broken,
        "SELECT setval('tickets_id_seq', 2040109466)",
        "CREATE INDEX orders_customer ON orders (customer_id)",
    )
    with ExitStack() as stack:
        root, middle, leaf = (stack.enter_context(connected(url, name)) for name in ("import", "web/1", "web/2"))
        threads = stack.enter_context(ThreadPoolExecutor(2))
        root.execute("BEGIN")
        root.execute("UPDATE orders SET total = 1 WHERE id = 1")
        middle.execute("BEGIN")
        middle.execute("UPDATE orders SET total = 2 WHERE id = 2")
        waiting = [
            threads.submit(middle.execute, "UPDATE orders SET total = 3 WHERE id = 1"),
            threads.submit(leaf.execute, "UPDATE orders SET total = 4 WHERE id = 2"),
        ]
        query = """
            SELECT count(DISTINCT l.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND a.datname = %s
        """
        until(lambda: postgres.admin().execute(query, [name_of(url)]).fetchone() == (2,))
        try:
            yield
        finally:
            root.execute("ROLLBACK")
            waiting[0].result(30)
            middle.execute("ROLLBACK")
            waiting[1].result(30)


@contextmanager
def with_names(postgres: Postgres, url: str) -> Iterator[None]:
    """Have tables whose names are long, from right to left, or look like HTML, and a program that is called so."""
    with connected(url, APPLICATION) as client:
        for number, name in enumerate(NAMES):
            table = sql.Identifier(name)
            client.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY)").format(table))
            for copy in (1, 2):
                index = sql.Identifier(f"{number}<b>{copy}")
                client.execute(sql.SQL("CREATE INDEX {} ON {} (id)").format(index, table))
        client.execute("BEGIN")
        client.execute(
            sql.SQL("SELECT id AS {} FROM {}").format(sql.Identifier("<b>bold</b>"), sql.Identifier(NAMES[1]))
        )
        until(lambda: _is_idle(postgres, client))
        yield


@contextmanager
def connected(url: str, name: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as a program of this name; what goes on goes on in transactions that are begun by hand."""
    with psycopg.connect(url, autocommit=True, application_name=name) as connection:
        yield connection


def run(url: str, *statements: str) -> None:
    """Run statements one after the other."""
    with connected(url, "states") as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _is_idle(postgres: Postgres, client: psycopg.Connection[Any]) -> bool:
    """Tell whether the server says so, for longer than the page leaves out."""
    query = """
        SELECT now() - state_change > interval '1.1 s' FROM pg_stat_activity
        WHERE pid = %s AND state = 'idle in transaction'
    """
    return postgres.admin().execute(query, [client.info.backend_pid]).fetchone() == (True,)

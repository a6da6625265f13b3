"""`db explain`: plans of a real server, read."""

import json
from collections.abc import Iterator

import psycopg
import pytest
from typer.testing import CliRunner

from ops import cli
from ops.explain import explain, read
from shared.errors import Refused
from shared.settings import reset_settings
from tests.servers.postgres import Postgres


@pytest.fixture(scope="module")
def orders(postgres: Postgres) -> Iterator[str]:
    """Return a database with a table of 20000 orders, 20 for each customer, indexed by id only."""
    with postgres.database() as name:
        url = postgres.url(name)
        connection = psycopg.connect(url, autocommit=True)
        connection.execute(
            "CREATE TABLE orders AS SELECT id, id % 1000 AS customer_id, 'note ' || id AS note, now() AS at"
            " FROM generate_series(1, 20000) AS id"
        )
        connection.execute("ALTER TABLE orders ADD PRIMARY KEY (id)")
        connection.execute("VACUUM (ANALYZE) orders")
        connection.close()
        yield url


@pytest.fixture(autouse=True)
def use(orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", orders)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()


def advice(sql: str, *, analyze: bool = True) -> list[str]:
    return list(read(explain(sql, analyze=analyze)["Plan"]))


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("customer_id = 7", "(customer_id)"),
        ("o.customer_id = 7", "(customer_id)"),
        ("note > 'z = 1' AND customer_id = 7", "(customer_id, note)"),
        ("customer_id = 7 AND at < '2001-01-01'", "(customer_id, at)"),
    ],
)
def test_a_missing_index_is_written_out_and_helps(orders: str, where: str, index: str) -> None:
    sql = f"SELECT * FROM orders o WHERE {where}"

    (sentence,) = [said for said in advice(sql) if "may help" in said]

    written = sentence.rpartition("may help: ")[2]
    assert written == f'CREATE INDEX CONCURRENTLY ON "orders" {index};'
    with psycopg.connect(orders, autocommit=True) as connection:
        connection.execute(written.encode())
        try:
            assert not [said for said in advice(sql) if "may help" in said]
        finally:
            connection.execute(f"DROP INDEX orders_{'_'.join(index.strip('()').split(', '))}_idx".encode())


def test_a_plan_alone_runs_nothing_and_finds_the_index_too(orders: str) -> None:
    assert advice("DELETE FROM orders WHERE customer_id = 7") != []
    assert explain("DELETE FROM orders WHERE customer_id = 7", analyze=False)["Plan"]["Node Type"] == "ModifyTable"

    with psycopg.connect(orders) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (20000,)


def test_what_analyze_writes_is_rolled_back(orders: str) -> None:
    found = explain("DELETE FROM orders", analyze=True)

    assert found["Execution Time"] > 0
    assert found["Plan"]["Plans"][0]["Actual Rows"] == 20000
    with psycopg.connect(orders) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (20000,)


def test_a_good_read_is_left_in_peace() -> None:
    assert advice("SELECT * FROM orders WHERE id = 7") == []
    assert advice("SELECT count(*) FROM orders") == []


def test_a_sort_on_disk_is_seen() -> None:
    sql = "SELECT o.*, repeat(note, 20) FROM orders o ORDER BY repeat(note, 20)"

    assert any("A sort of " in said and "went to disk" in said for said in advice(sql))


def test_a_wrong_estimate_is_seen(orders: str) -> None:
    with psycopg.connect(orders, autocommit=True) as connection:
        connection.execute("CREATE TABLE grown (n int) WITH (autovacuum_enabled = off)")
        connection.execute("INSERT INTO grown SELECT 1")
        connection.execute("ANALYZE grown")
        connection.execute("INSERT INTO grown SELECT n FROM generate_series(1, 50000) AS n")

    assert any(said.endswith('ANALYZE "grown";') for said in advice("SELECT * FROM grown WHERE n > 0"))


def test_values_may_be_left_open() -> None:
    plan = explain("SELECT * FROM orders WHERE id = $1 AND note LIKE $2", analyze=False)["Plan"]

    assert plan["Index Name"] == "orders_pkey"
    with pytest.raises(Refused, match="not run"):
        explain("SELECT * FROM orders WHERE id = $1", analyze=True)


@pytest.mark.parametrize("sql", ["SELECT 1; DROP TABLE orders", "", ";", "SELECT 'open"])
def test_only_one_statement_is_taken(sql: str) -> None:
    with pytest.raises(Refused):
        explain(sql, analyze=False)


def test_the_command_prints_plan_and_advice() -> None:
    result = CliRunner().invoke(cli.cli, ["explain", "SELECT * FROM orders WHERE customer_id = 7", "--analyze"])
    assert "Seq Scan on orders" in result.stdout
    assert "Filter: (customer_id = 7)" in result.stdout
    assert "  - It reads the whole of orders for 20 rows" in result.stdout

    result = CliRunner().invoke(cli.cli, ["explain", "SELECT 1", "--json"])
    assert json.loads(result.stdout)["advice"] == []

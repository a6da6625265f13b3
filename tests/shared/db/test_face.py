"""The functions that endpoints call, with both drivers."""

import contextlib
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import db, errors
from shared.db.transaction import Isolation
from tests.shared.db.conftest import Use


@pytest.fixture
def on(use: Use, driver: str, lasting_database: str) -> Iterator[str]:
    """Point the face to a database that has an empty table `t`, with one driver; give the driver's name."""
    use(lasting_database)
    db.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY, c text)")
    yield driver
    assert db.get_pool().statistics()["in_use"] == 0, "every function gives its connection back"


def numbers() -> list[int]:
    return [row["n"] for row in db.fetch_all("SELECT n FROM t ORDER BY n")]


# -- one statement ----------------------------------------------------------------------------------


def test_one_row_all_rows_one_value(on: str) -> None:
    db.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")

    assert db.fetch_one("SELECT * FROM t WHERE n = %(n)s", {"n": 2}) == {"n": 2, "c": "b"}
    assert db.fetch_one("SELECT * FROM t ORDER BY n") == {"n": 1, "c": "a"}
    assert db.fetch_one("SELECT * FROM t WHERE n = 3") is None
    assert db.fetch_all("SELECT n FROM t ORDER BY n") == [{"n": 1}, {"n": 2}]
    assert db.fetch_all("SELECT n FROM t WHERE n > 2") == []
    assert db.fetch_value("SELECT count(*) AS count, 'more' AS more FROM t") == 2
    assert db.fetch_value("SELECT n FROM t WHERE n > 2") is None
    assert db.fetch_value("SELECT NULL") is None


def test_columns_keep_their_order_and_case(on: str) -> None:
    row = db.fetch_one('SELECT 1 AS z, 2 AS "A b", 3 AS "é"')
    assert row is not None
    assert list(row.items()) == [("z", 1), ("A b", 2), ("é", 3)]


def test_execute_tells_how_many_rows_it_touched(on: str) -> None:
    assert db.execute("INSERT INTO t SELECT generate_series(1, %(n)s)", {"n": 5}) == 5
    assert db.execute("UPDATE t SET c = 'x' WHERE n > 2") == 3
    assert db.execute("UPDATE t SET c = %(c)s WHERE n = ANY(%(ns)s)", {"c": "y", "ns": [1, 2, 9]}) == 2
    assert db.execute("DELETE FROM t WHERE n > 5") == 0
    assert db.execute("SELECT * FROM t") == 5
    assert db.execute("CREATE INDEX ON t (c)") == 0


def test_a_write_is_there_at_once(on: str) -> None:
    assert db.fetch_value("INSERT INTO t VALUES (1) RETURNING n") == 1
    assert numbers() == [1]


def test_several_statements_at_once_are_all_or_nothing(on: str) -> None:
    db.execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
    assert numbers() == [1, 2]
    with pytest.raises(errors.UniqueViolation):
        db.execute("INSERT INTO t VALUES (3); INSERT INTO t VALUES (1)")
    with pytest.raises(errors.DatabaseError):
        db.execute("INSERT INTO t VALUES (%(n)s); INSERT INTO t VALUES (5)", {"n": 4})  # with parameters only one
    assert numbers() == [1, 2]


def test_many_sets_of_parameters_are_all_or_none(on: str) -> None:
    insert = "INSERT INTO t VALUES (%(n)s, %(c)s)"
    assert db.execute_many(insert, ({"n": n, "c": str(n)} for n in range(100))) == 100
    assert db.execute_many(insert, []) == 0
    with pytest.raises(errors.UniqueViolation):
        db.execute_many(insert, [{"n": 100, "c": "new"}, {"n": 1, "c": "old"}])
    assert db.fetch_value("SELECT count(*) FROM t WHERE c = n::text") == 100
    assert numbers() == list(range(100))


def test_many_in_a_transaction(on: str) -> None:
    with db.transaction() as tx:
        assert tx.execute_many("INSERT INTO t VALUES (%(n)s)", [{"n": 1}, {"n": 2}]) == 2
        assert tx.execute_many("UPDATE t SET c = %(c)s", [{"c": "a"}, {"c": "b"}]) == 4
        assert tx.fetch_value("SELECT count(*) FROM t WHERE c = 'b'") == 2
    assert numbers() == [1, 2]


# -- streams ----------------------------------------------------------------------------------------

SERIES = "SELECT g AS n FROM generate_series(1, %(n)s::int) AS g"


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 30])
def test_a_stream_gives_every_row_once(on: str, rows: int) -> None:
    assert [row["n"] for row in db.stream(SERIES, {"n": rows}, batch=10)] == list(range(1, rows + 1))


def test_a_stream_that_is_closed_early_gives_its_connection_back(on: str) -> None:
    stream = db.stream(SERIES, {"n": 1000}, batch=10)
    assert next(stream) == {"n": 1}
    assert db.get_pool().statistics()["in_use"] == 1
    stream.close()  # type: ignore[attr-defined]
    assert db.get_pool().statistics()["in_use"] == 0

    for row in db.stream(SERIES, {"n": 1000}):
        if row["n"] == 3:
            break
    del row
    gc.collect()
    assert db.get_pool().statistics()["in_use"] == 0
    assert db.get_pool().statistics()["opened"] == 1


def test_a_stream_that_fails_gives_its_connection_back(on: str) -> None:
    rows = db.stream("SELECT 10 / (5 - g) AS n FROM generate_series(1, 9) AS g", batch=2)
    with pytest.raises(errors.DatabaseError, match="division by zero"):
        list(rows)
    with pytest.raises(errors.UndefinedTable):
        list(db.stream("SELECT * FROM nowhere"))
    assert db.get_pool().statistics()["in_use"] == 0


def test_a_stream_writes_nothing(on: str) -> None:
    db.execute("CREATE SEQUENCE IF NOT EXISTS s")
    with pytest.raises(errors.DatabaseError, match="read-only"):
        list(db.stream("SELECT nextval('s')"))


def test_streams_in_a_transaction_do_not_disturb_each_other(on: str) -> None:
    with db.transaction() as tx:
        pairs = zip(tx.stream(SERIES, {"n": 25}, batch=10), tx.stream(SERIES, {"n": 25}, batch=7), strict=True)
        assert all(one == other for one, other in pairs)
        assert tx.fetch_value("SELECT count(*) FROM pg_cursors WHERE name LIKE 'cursor_%%'", {}) == 0


# -- transactions -----------------------------------------------------------------------------------


def test_a_transaction_commits_at_its_end(on: str) -> None:
    with db.transaction() as tx:
        assert tx.execute("INSERT INTO t VALUES (1)") == 1
        assert tx.fetch_one("SELECT n FROM t") == {"n": 1}
        assert tx.fetch_all("SELECT n FROM t") == [{"n": 1}]
        assert numbers() == []  # the others' view
    assert numbers() == [1]


class _Oops(Exception):
    pass


@pytest.mark.parametrize("error", [_Oops, KeyboardInterrupt, GeneratorExit])
def test_a_transaction_that_raises_is_rolled_back(on: str, error: type[BaseException]) -> None:
    def fail() -> None:
        with db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            raise error

    with pytest.raises(error):
        fail()
    assert numbers() == []
    assert db.get_pool().statistics()["opened"] == 1


def test_a_statement_that_fails_rolls_back_the_transaction(on: str) -> None:
    def fail() -> None:
        with db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            tx.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(errors.UniqueViolation):
        fail()
    assert numbers() == []


def test_a_failed_statement_that_is_caught_inside_commits_nothing_and_says_so(on: str) -> None:
    def swallow() -> None:
        with db.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            with contextlib.suppress(errors.DatabaseError):
                tx.execute("SELECT 1 / 0")

    with pytest.raises(errors.DatabaseError, match="nothing of it was committed") as caught:
        swallow()
    assert caught.value.sqlstate == "25P02"
    assert "savepoint" in caught.value.solutions[0]
    assert numbers() == []


def test_a_first_statement_that_fails_and_is_caught_says_so_too(on: str) -> None:
    def swallow() -> None:
        with db.transaction() as tx, contextlib.suppress(errors.DatabaseError):
            tx.execute("SELECT %(n)s::int / 0", {"n": 1})

    with pytest.raises(errors.DatabaseError, match="nothing of it was committed"):
        swallow()


def test_a_savepoint_undoes_its_block_only(on: str) -> None:
    def insert_twice(tx: db.Transaction) -> None:
        with tx.savepoint():
            tx.execute("INSERT INTO t VALUES (2)")
            tx.execute("INSERT INTO t VALUES (2)")

    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(errors.UniqueViolation):
            insert_twice(tx)
        with tx.savepoint():
            tx.execute("INSERT INTO t VALUES (3)")
            with pytest.raises(errors.UniqueViolation):
                insert_twice(tx)
    assert numbers() == [1, 3]


def test_a_savepoint_may_come_first(on: str) -> None:
    with db.transaction() as tx, tx.savepoint():
        tx.execute("INSERT INTO t VALUES (1)")
    assert numbers() == [1]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_transaction_has_the_isolation_it_asks_for(on: str, isolation: Isolation, read_only: bool) -> None:
    with db.transaction(isolation=isolation, read_only=read_only) as tx:
        assert tx.fetch_value("SHOW transaction_isolation") == isolation
        assert tx.fetch_value("SHOW transaction_read_only") == ("on" if read_only else "off")
    with db.transaction() as tx:
        assert tx.fetch_value("SHOW transaction_isolation") == "read committed"
        assert tx.fetch_value("SHOW transaction_read_only") == "off"


def test_a_read_only_transaction_writes_nothing(on: str) -> None:
    with pytest.raises(errors.DatabaseError) as caught, db.transaction(read_only=True) as tx:
        tx.execute("INSERT INTO t VALUES (1)")
    assert caught.value.sqlstate == "25006"


def test_a_session_that_refuses_to_write_is_given_up(on: str) -> None:
    """As that on the old primary after a failover: the next statement finds the new one."""
    db.execute("SET default_transaction_read_only = on")
    with pytest.raises(errors.DatabaseError) as caught:
        db.execute("INSERT INTO t VALUES (1)")
    assert caught.value.sqlstate == "25006"
    db.execute("INSERT INTO t VALUES (1)")


def test_a_transaction_is_used_in_its_block_and_once(on: str) -> None:
    transaction = db.transaction()
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        transaction.fetch_one("SELECT 1")
    with transaction as tx:
        with pytest.raises(RuntimeError, match="entered already"), transaction:
            pass
        assert tx.fetch_value("SELECT 1") == 1
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        tx.execute("SELECT 1")
    with pytest.raises(RuntimeError, match="entered already"), transaction:
        pass


def test_two_transactions_at_once_have_a_connection_each(on: str) -> None:
    with db.transaction() as one, db.transaction() as other:
        pids = {tx.fetch_value("SELECT pg_backend_pid()") for tx in (one, other)}
    assert len(pids) == 2


# -- the rest ---------------------------------------------------------------------------------------


def test_after_closing_the_next_statement_opens_anew(on: str) -> None:
    first = db.fetch_value("SELECT pg_backend_pid()")
    db.close_db()
    db.close_db()
    assert db.fetch_value("SELECT pg_backend_pid()") != first


def test_nothing_is_read_or_opened_by_importing(use: Use) -> None:
    use("mysql://not-a-database")
    with pytest.raises(errors.ConfigurationError, match="DATABASE_URL"):
        db.fetch_one("SELECT 1")


def test_the_documented_examples_run(use: Use, driver: str, migrated_database: str) -> None:
    use(migrated_database)
    text = (Path(__file__).parents[3] / "docs" / "CONNECTIONS.md").read_text("utf-8")
    names: dict[str, object] = {}
    for example in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(example, names)

    assert [row["code"] for row in names["plans"]] == ["free", "pro_monthly"]  # type: ignore[attr-defined]
    assert names["touched"] == 1
    assert db.fetch_value("SELECT features FROM plans WHERE code = 'free'") == {"seats": 1}
    db.close_db()

"""Both drivers behind one face: values, parameters and errors are the same, and where not, this says so."""

import datetime
import ipaddress
import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple

import pytest

from shared import db, errors
from tests.servers.postgres import Postgres
from tests.shared.db.conftest import Use
from tests.shared.db.watching import sessions, terminate

UTC = datetime.UTC
MOMENT = datetime.datetime(2026, 1, 2, 10, 11, 12, 500, tzinfo=UTC)
SOME_UUID = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")


@pytest.fixture
def on(use: Use, driver: str, lasting_database: str) -> str:
    """Point the face to a database without tables, with one driver, and give the driver's name."""
    use(lasting_database)
    db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return driver


# -- values -----------------------------------------------------------------------------------------

VALUES: tuple[tuple[str, Any], ...] = (
    ("int2", -(2**15)),
    ("int4", 2**31 - 1),
    ("int8", 2**63 - 1),
    ("float4", 1.5),
    ("float8", 0.1),
    ("numeric", Decimal("12345678901234567890.12")),
    ("bool", True),
    ("bool", False),
    ("text", "p%@/:?#&+ é €\N{GRINNING FACE} '\" \\ \n"),
    ("text", ""),
    ("varchar(5)", "abc"),
    ("bytea", b"\x00\xff'\\"),
    ("date", datetime.date(2026, 1, 2)),
    ("time", datetime.time(10, 11, 12, 500)),
    ("timestamp", MOMENT.replace(tzinfo=None)),
    ("timestamptz", MOMENT),
    ("interval", datetime.timedelta(days=1, hours=2, microseconds=3)),
    ("uuid", SOME_UUID),
    ("jsonb", {"a": [1, 2.5, None, True, "é"], "b": {}}),
    ("json", {"a": [1]}),
    ("inet", ipaddress.ip_address("10.0.0.1")),
    ("int4[]", [1, 2, None]),
    ("int4[]", []),
    ("int8[]", [[1, 2], [3, 2**40]]),
    ("text[]", ["a", 'b,"c"', "", None, "{}", "NULL"]),
    ("bool[]", [True, False]),
    ("numeric[]", [Decimal("1.50")]),
    ("uuid[]", [SOME_UUID]),
    ("date[]", [datetime.date(2026, 1, 2)]),
    ("timestamptz[]", [MOMENT]),
    ("text", None),
    ("int4[]", None),
)


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[f"{kind} {n}" for n, (kind, _) in enumerate(VALUES)])
def test_a_value_comes_back_as_it_went(on: str, kind: str, value: Any) -> None:
    back = db.fetch_value(f"SELECT %(value)s::{kind} AS value", {"value": value})
    assert (back, type(back)) == (value, type(value))
    with db.transaction() as tx:
        for _ in range(2):  # the first travels with its BEGIN
            assert tx.fetch_value(f"SELECT %(value)s::{kind} AS value", {"value": value}) == back

    db.execute(f"CREATE TABLE t (value {kind})")
    assert db.fetch_one("INSERT INTO t VALUES (%(value)s) RETURNING value", {"value": value}) == {"value": back}
    assert db.fetch_value("SELECT value FROM t") == back


@pytest.mark.parametrize("kind", ["jsonb", "json"])
@pytest.mark.parametrize("text", ["[1, 2]", "null", '"text"', '{"a": {"b": "\\u00e9"}}'])
def test_json_goes_in_as_text_too(on: str, kind: str, text: str) -> None:
    assert db.fetch_value(f"SELECT %(value)s::{kind}", {"value": text}) == json.loads(text)


def test_a_moment_is_the_same_in_every_time_zone(use: Use, driver: str, database: str) -> None:
    use(f"{database}?options=-c%20TimeZone%3DEurope/Berlin")
    back = db.fetch_value("SELECT %(value)s::timestamptz", {"value": MOMENT})
    assert back == MOMENT
    assert back.utcoffset() == datetime.timedelta(hours=1)


def test_what_differs_between_the_drivers(on: str) -> None:
    psycopg = on == "psycopg"
    # A parameter whose type the statement leaves open: psycopg goes by the value, pg8000 sends text.
    assert db.fetch_value("SELECT %(n)s AS n", {"n": 1}) == (1 if psycopg else "1")
    assert db.fetch_value("SELECT 'infinity'::text") == "infinity"
    # What Python's dates do not reach.
    if psycopg:
        with pytest.raises(errors.DatabaseError):
            db.fetch_value("SELECT 'infinity'::date")
    else:
        assert db.fetch_value("SELECT 'infinity'::date") == "infinity"
    assert (db.fetch_value("SELECT '1 month'::interval") == datetime.timedelta(days=30)) is psycopg
    assert isinstance(db.fetch_value("SELECT '10.0.0.0/8'::cidr"), ipaddress.IPv4Network if psycopg else str)


# -- parameters -------------------------------------------------------------------------------------


Ask = Callable[..., Any]


@pytest.fixture(params=["alone", "first in a transaction", "second in a transaction"])
def ask(on: str, request: pytest.FixtureRequest) -> Ask:
    """Return a function that asks for a row, on each of the ways that a statement may take to the server."""

    def ask(sql: LiteralString, params: dict[str, Any] | None = None) -> Any:
        if request.param == "alone":
            return db.fetch_one(sql, params)
        with db.transaction() as tx:
            if request.param.startswith("second"):
                tx.execute("SELECT 1")
            return tx.fetch_one(sql, params)

    return ask


def test_parameters_have_names_and_a_percent_sign_is_doubled(ask: Ask) -> None:
    statement = "SELECT %(a)s::int + %(b)s::int AS sum, %(a)s::int AS again, '100%%' AS percent, 7 %% 4 AS rest"
    assert ask(statement, {"a": 1, "b": 2}) == {"sum": 3, "again": 1, "percent": "100%", "rest": 3}
    # Without parameters there is nothing to replace.
    assert ask("SELECT '100%' || '%(a)s' AS text") == {"text": "100%%(a)s"}
    assert ask("SELECT '100%%' AS text", {}) == {"text": "100%"}


def test_more_parameters_than_used_are_fine(ask: Ask) -> None:
    assert ask("SELECT %(a)s::int AS a", {"a": 1, "unused": object()}) == {"a": 1}


@pytest.mark.parametrize(
    "sql", ["SELECT 7 % 4", "SELECT '50%'", "SELECT %s", "SELECT %(a)d", "SELECT %(missing)s::int"]
)
def test_a_parameter_that_is_none_is_refused(ask: Ask, sql: str) -> None:
    with pytest.raises(errors.DatabaseError):
        ask(sql, {"a": 1})
    assert ask("SELECT 1 AS a") == {"a": 1}


def test_a_dict_goes_in_as_json(ask: Ask) -> None:
    value = {"a": [1, {"b": None}]}
    assert ask("SELECT %(value)s::jsonb AS a", {"value": value}) == {"a": value}


def test_a_statement_that_gives_no_rows_gives_none(ask: Ask) -> None:
    assert ask("CREATE TABLE t (n int)") is None
    assert ask("INSERT INTO t VALUES (%(n)s)", {"n": 1}) is None
    assert ask("SELECT n FROM t WHERE n = 2") is None


def test_a_list_goes_in_as_any(on: str) -> None:
    db.execute("CREATE TABLE t AS SELECT n, chr(96 + n) AS c FROM generate_series(1, 5) AS n")

    found = db.fetch_all("SELECT n FROM t WHERE n = ANY(%(ids)s) ORDER BY n", {"ids": [2, 4, 9]})
    assert [row["n"] for row in found] == [2, 4]
    assert db.fetch_value("SELECT count(*) FROM t WHERE c = ANY(%(cs)s)", {"cs": ["a", "b'"]}) == 1
    assert db.fetch_all("SELECT n FROM t WHERE n = ANY(%(ids)s)", {"ids": []}) == []
    assert db.fetch_value("SELECT count(*) FROM t WHERE NOT n = ANY(%(ids)s)", {"ids": []}) == 5


def test_a_parameter_is_never_read_as_sql(on: str) -> None:
    db.execute("CREATE TABLE t (c text)")
    nasty = "'; DROP TABLE t; -- %(c)s %s $1"
    db.execute("INSERT INTO t VALUES (%(c)s)", {"c": nasty})
    assert db.fetch_value("SELECT c FROM t WHERE c = %(c)s", {"c": nasty}) == nasty


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udfff"])
def test_text_that_the_server_cannot_hold_is_refused(on: str, text: str) -> None:
    pid = db.fetch_value("SELECT pg_backend_pid()")
    for value in (text, [text]):
        with pytest.raises(errors.DatabaseError):
            db.fetch_value("SELECT %(value)s::text", {"value": value})
        with pytest.raises(errors.DatabaseError), db.transaction() as tx:
            tx.execute("SELECT %(value)s::text", {"value": value})
    assert db.fetch_value("SELECT pg_backend_pid()") == pid


def test_the_last_of_two_columns_with_one_name_counts(on: str) -> None:
    assert db.fetch_one("SELECT 1 AS a, 2 AS a") == {"a": 2}


# -- errors -----------------------------------------------------------------------------------------


class Refused(NamedTuple):
    """A statement that the server refuses, and the error that must come of it."""

    kind: type[errors.DatabaseError]
    sqlstate: str
    sql: str
    constraint: str | None = None
    params: dict[str, Any] | None = None


REFUSED = (
    Refused(errors.UniqueViolation, "23505", "INSERT INTO child VALUES (1, 1, 1)", "child_pkey"),
    Refused(errors.ForeignKeyViolation, "23503", "INSERT INTO child VALUES (2, 9, 1)", "child_parent_fkey"),
    Refused(errors.ForeignKeyViolation, "23503", "DELETE FROM parent", "child_parent_fkey"),
    Refused(errors.NotNullViolation, "23502", "INSERT INTO child VALUES (2, NULL, 1)"),
    Refused(errors.CheckViolation, "23514", "INSERT INTO child VALUES (2, 1, -1)", "positive"),
    Refused(errors.IntegrityError, "23P01", "INSERT INTO room VALUES ('[2,3]')", "room_during_excl"),
    Refused(errors.UndefinedTable, "42P01", "SELECT * FROM nowhere"),
    Refused(errors.DatabaseError, "42703", "SELECT nothing FROM parent"),
    Refused(errors.DatabaseError, "42601", "SELEC 1"),
    Refused(errors.DatabaseError, "22012", "SELECT 1 / 0"),
    Refused(errors.DataException, "22P02", "SELECT %(n)s::int", None, {"n": "many"}),
    Refused(errors.DatabaseError, "42501", "CREATE ROLE another"),
    Refused(errors.DatabaseError, "P0001", "DO $$ BEGIN RAISE 'no' USING CONSTRAINT = 'ours'; END $$", "ours"),
    Refused(errors.QueryCanceled, "57014", "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)"),
    Refused(errors.DatabaseError, "25006", "SET TRANSACTION READ ONLY; INSERT INTO parent VALUES (5)"),
    Refused(errors.DatabaseError, "0A000", "COPY parent TO STDOUT"),
)


@pytest.fixture
def tables(on: str) -> str:
    """Create tables with a constraint of each kind."""
    db.execute(
        """
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (
            id int PRIMARY KEY, parent int NOT NULL REFERENCES parent, n int CONSTRAINT positive CHECK (n > 0)
        );
        CREATE TABLE room (during int4range, EXCLUDE USING gist (during WITH &&));
        INSERT INTO parent VALUES (1);
        INSERT INTO child VALUES (1, 1, 1);
        INSERT INTO room VALUES ('[1,5]');
        """
    )
    return on


@pytest.mark.parametrize("refused", REFUSED, ids=[f"{refused.sqlstate} {refused.sql[:12]}" for refused in REFUSED])
def test_what_the_server_refuses_has_its_error(tables: str, refused: Refused, ask: Ask) -> None:
    with pytest.raises(errors.DatabaseError) as caught:
        ask(refused.sql, refused.params)

    error = caught.value
    assert type(error) is refused.kind
    assert (error.sqlstate, error.constraint) == (refused.sqlstate, refused.constraint)
    assert error.message
    assert "\n" not in error.message
    assert error.__cause__ is not None
    assert db.fetch_value("SELECT 1") == 1
    assert db.get_pool().statistics()["in_use"] == 0


def test_two_that_wait_for_each_other(tables: str) -> None:
    db.execute("INSERT INTO parent VALUES (2)")
    lock = "SELECT FROM parent WHERE id = %(id)s FOR UPDATE"
    locked = threading.Barrier(2)

    def take(ids: tuple[int, int]) -> errors.Error | None:
        try:
            with db.transaction() as tx:
                tx.execute(lock, {"id": ids[0]})
                locked.wait(10)
                tx.execute(lock, {"id": ids[1]})
        except errors.Error as error:
            return error
        return None

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(take, [(1, 2), (2, 1)]))
    (refused,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(refused, errors.DeadlockDetected)
    assert refused.sqlstate == "40P01"


def test_two_that_change_the_same(tables: str) -> None:
    def overtaken() -> None:
        with db.transaction(isolation="repeatable read") as tx:
            assert tx.fetch_value("SELECT n FROM child") == 1
            db.execute("UPDATE child SET n = 2")
            tx.execute("UPDATE child SET n = 3")

    with pytest.raises(errors.SerializationFailure) as caught:
        overtaken()
    assert caught.value.sqlstate == "40001"
    assert db.fetch_value("SELECT n FROM child") == 2


def test_a_commit_that_the_server_refuses(tables: str) -> None:
    db.execute("ALTER TABLE child ALTER CONSTRAINT child_parent_fkey DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(errors.ForeignKeyViolation) as caught, db.transaction() as tx:
        tx.execute("INSERT INTO child VALUES (2, 9, 1)")
    assert caught.value.constraint == "child_parent_fkey"
    assert db.fetch_value("SELECT count(*) FROM child") == 1


def test_a_lock_that_is_not_given(tables: str, use: Use, lasting_database: str) -> None:
    use(f"{lasting_database}?options=-c%20lock_timeout%3D20")
    with db.transaction() as tx:
        tx.execute("SELECT FROM parent FOR UPDATE")
        for statement in ("SELECT FROM parent FOR UPDATE NOWAIT", "SELECT FROM parent FOR UPDATE"):
            with pytest.raises(errors.LockNotAvailable) as caught:
                db.fetch_all(statement)
            assert caught.value.sqlstate == "55P03"


def test_a_connection_that_is_lost(tables: str, ask: Ask) -> None:
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        ask("SELECT pg_terminate_backend(pg_backend_pid())")

    # psycopg reads on after the server's farewell when BEGIN travels along, and loses it.
    assert caught.value.sqlstate in (("57P01", None) if tables == "psycopg" else ("57P01",))
    assert db.fetch_value("SELECT 1") == 1


def test_a_transaction_whose_connection_is_lost_commits_nothing(
    tables: str, postgres: Postgres, lasting_database: str
) -> None:
    def lost() -> None:
        with db.transaction() as tx:
            tx.execute("INSERT INTO parent VALUES (7)")
            terminate(postgres, *[row.pid for row in sessions(postgres, lasting_database)])

    with pytest.raises((errors.DatabaseUnavailable, errors.TransactionResolutionUnknown)):
        lost()
    assert db.fetch_value("SELECT count(*) FROM parent") == 1

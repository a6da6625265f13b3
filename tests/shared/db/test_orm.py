"""SQLAlchemy's Core and ORM over the pool, with both drivers: what SQLAlchemy promises, at what price on the wire."""

import datetime
import decimal
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    cast,
    func,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy import exc as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from shared import db
from shared.db.orm import get_engine
from shared.errors import TransactionResolutionUnknown, UniqueViolation
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.watching import sessions, terminate, until

CONNECT = 3  # start-up packet, two messages of SCRAM
DOCS = Path(__file__).parents[3] / "docs"


class Base(DeclarativeBase):
    """The tables of these tests."""


class Author(Base):
    """Somebody with books."""

    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    facts: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    books: Mapped[list["Book"]] = relationship(order_by="Book.id")


class Book(Base):
    """A book of somebody."""

    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    title: Mapped[str]


@pytest.fixture
def engine(use: Use, driver: str, database: str) -> Engine:
    """Return the engine on a database with the tables."""
    use(database)
    Base.metadata.create_all(get_engine())
    return get_engine()


@pytest.fixture
def proxied(engine: Engine, use: Use, database: str, wire_proxy: WireProxy) -> Engine:
    """Return the engine on the same, through the proxy and without TLS, connected."""
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    with get_engine().connect():
        return get_engine()


def autocommit(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


# -- the price ---------------------------------------------------------------------------------------


def test_connecting_asks_nothing_and_the_first_row_costs_four(
    use: Use, driver: str, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    with wire_proxy.count() as count, autocommit(get_engine()).connect() as connection:
        assert connection.execute(select(literal(7))).scalar_one() == 7
    assert count.flights == CONNECT + 1


def test_to_check_out_and_to_return_costs_nothing(proxied: Engine, wire_proxy: WireProxy) -> None:
    with wire_proxy.count() as count:
        for _ in range(10):
            with proxied.connect():
                pass
            with proxied.connect() as connection, connection.begin():
                pass
            with proxied.connect().execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True):
                pass
            with Session(proxied) as session:
                session.commit()
    assert count.flights == 0


def test_a_warm_read_costs_one_in_autocommit_for_ever(proxied: Engine, wire_proxy: WireProxy) -> None:
    with wire_proxy.count() as count:
        for n in range(50):
            with autocommit(proxied).connect() as connection:
                assert connection.execute(select(literal(n))).scalar_one() == n
    assert (count.flights, count.connections) == (50, 0)


def test_a_transaction_of_n_statements_costs_n_and_its_end(proxied: Engine, wire_proxy: WireProxy) -> None:
    with wire_proxy.count() as count, proxied.begin() as connection:
        connection.execute(text("SELECT 1"))
        connection.execute(select(func.upper("a")))
        connection.execute(insert(Author).values(name="A"))
    assert count.flights == 3 + 1
    with wire_proxy.count() as count, proxied.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Author)).scalar_one() == 1
    assert count.flights == 1 + 1  # and its ROLLBACK


def test_a_savepoint_costs_its_two_statements(proxied: Engine, wire_proxy: WireProxy) -> None:
    with wire_proxy.count() as count, proxied.begin() as connection, connection.begin_nested():
        connection.execute(text("SELECT 1"))
    assert count.flights == 2 + 1 + 1


def test_a_session_costs_its_statements_and_commit(proxied: Engine, wire_proxy: WireProxy) -> None:
    with wire_proxy.count() as count, Session(proxied) as session:
        session.add(Author(name="A"))
        session.commit()
    assert count.flights == 2
    with wire_proxy.count() as count, Session(proxied) as session:
        assert session.get_one(Author, 1).name == "A"
    assert count.flights == 2


# -- Core and the ORM --------------------------------------------------------------------------------


def test_what_goes_in_comes_out(engine: Engine) -> None:
    values: list[Any] = [
        1, 2**40, 1.5, decimal.Decimal("1.10"), "ä%b:c'd", True, uuid.uuid4(),
        datetime.date(2026, 11, 21), datetime.datetime(2026, 11, 21, 1, 2, 3, 4, datetime.UTC),
        datetime.timedelta(hours=3),
    ]  # fmt: skip
    with engine.connect() as connection:
        for value in values:
            assert connection.execute(select(literal(value))).scalar_one() == value
        assert connection.execute(select(cast(b"\0\xff", LargeBinary))).scalar_one() == b"\0\xff"
        assert connection.execute(select(func.cardinality(cast([1, 2, 3], ARRAY(Integer))))).scalar_one() == 3
        document = {"a": [1, None, {"b": "ü"}]}
        assert connection.execute(select(literal(document, JSONB))).scalar_one() == document


def test_core_writes_and_reads(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(Author), [{"name": name, "facts": {"born": 1900}} for name in "abc"])
        upsert = insert(Author).values(name="a", facts={"born": 1901}).on_conflict_do_update(
            index_elements=["name"], set_={"facts": {"born": 1901}}
        )  # fmt: skip
        assert connection.execute(upsert.returning(Author.facts)).scalar_one() == {"born": 1901}
        named = text("SELECT count(*) FROM author WHERE name LIKE 'a%' AND name = ANY(:names)").bindparams(
            bindparam("names", ["a", "b"])
        )
        if engine.dialect.driver == "psycopg":  # pg8000 takes no lone % beside a parameter
            assert connection.execute(named).scalar_one() == 1
        updated = connection.execute(Author.__table__.update().values(facts=None))  # type: ignore[attr-defined]
        assert updated.rowcount == 3
        # Several sets of parameters, no rows back.
        connection.execute(text("INSERT INTO book (author_id, title) VALUES (1, :t)"), [{"t": "x"}, {"t": "y"}])
    assert db.fetch_value("SELECT count(*) FROM book") == 2
    reflected = Table("book", MetaData(), autoload_with=engine)
    assert [column.name for column in reflected.columns] == ["id", "author_id", "title"]
    assert inspect(engine).get_foreign_keys("book")[0]["referred_table"] == "author"


def test_the_orm_writes_and_reads(engine: Engine) -> None:
    with Session(engine) as session:
        author = Author(name="A", facts={"born": 1900}, books=[Book(title=f"{n}") for n in range(20)])
        session.add(author)
        session.flush()
        assert [book.id for book in author.books] == sorted(book.id for book in author.books)
        session.commit()
        author.books[0].title = "first"
        session.commit()
        assert session.scalars(select(Book.title).order_by(Book.id)).first() == "first"
        session.delete(author.books[0])
        session.rollback()
        assert len(author.books) == 20
    assert db.get_pool().statistics()["in_use"] == 0


def test_a_savepoint_undoes_its_own_block(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(Author(name="A"))
        with pytest.raises(sa.IntegrityError), session.begin_nested():
            session.add(Author(name="A"))
        session.add(Author(name="B"))
    assert db.fetch_all("SELECT name FROM author ORDER BY name") == [{"name": "A"}, {"name": "B"}]


def test_rows_stream_from_a_server_side_cursor(proxied: Engine, wire_proxy: WireProxy) -> None:
    numbers = select(func.generate_series(1, 25).column_valued("n"))
    declared = "SELECT count(*) FROM pg_cursors WHERE name <> ''"
    with proxied.connect() as connection, wire_proxy.count() as count:
        result = connection.execute(numbers.execution_options(yield_per=10))
        first = next(result.partitions())
        assert len(first) == 10
        assert connection.execute(text(declared)).scalar_one() == 1
        assert [row[0] for row in [*first, *result]] == list(range(1, 26))
        assert connection.execute(text(declared)).scalar_one() == 0
    # psycopg: BEGIN, DECLARE, and what its columns are; pg8000: BEGIN with DECLARE. SQLAlchemy begins with one row.
    declare, fetches, close, pg_cursors = 3 if proxied.dialect.driver == "psycopg" else 1, 5, 1, 2
    assert count.flights == declare + fetches + close + pg_cursors


def test_a_stream_that_is_left_in_its_middle_leaves_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True, max_row_buffer=5).execute(
            text("SELECT generate_series(1, 100000)")
        )
        assert result.fetchone() == (1,)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_cursors WHERE name <> ''")).scalar_one() == 0
    with Session(engine) as session:
        session.add_all(Book(title=str(n), author_id=1) for n in range(30))
        session.add(Author(id=1, name="A"))
        session.flush()
        titles = [book.title for book in session.scalars(select(Book).order_by(Book.id).execution_options(yield_per=7))]
    assert titles == [str(n) for n in range(30)]


# -- how a transaction ends --------------------------------------------------------------------------


def test_what_is_not_committed_is_rolled_back(engine: Engine) -> None:
    def write_and_fail() -> None:
        with engine.begin() as connection:
            connection.execute(insert(Author).values(name="A"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with engine.connect() as connection:
        connection.execute(insert(Author).values(name="B"))
    with closing(engine.raw_connection()) as raw, closing(raw.cursor()) as cursor:
        cursor.execute("INSERT INTO author (name) VALUES ('C')")
    assert db.fetch_value("SELECT count(*) FROM author") == 0


def test_the_driver_s_own_connection_is_in_the_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        driver_s = connection.connection.driver_connection
        assert driver_s is not None
        driver_s.cursor().execute("INSERT INTO author (name) VALUES ('A')")
    assert db.fetch_value("SELECT count(*) FROM author") == 0


def test_copy_is_in_the_transaction(engine: Engine, driver: str, tmp_path: Path) -> None:
    source = tmp_path / "rows"
    source.write_bytes(b"A\nB\n")
    for commit, kept in ((False, 0), (True, 2)):
        with closing(engine.raw_connection()) as raw, source.open("rb") as stream:
            cursor: Any = raw.cursor()
            if driver == "psycopg":
                with cursor.copy("COPY author (name) FROM STDIN") as copy:
                    copy.write(stream.read())
            else:
                cursor.execute("COPY author (name) FROM STDIN", stream=stream)
            if commit:
                raw.commit()
        assert db.fetch_value("SELECT count(*) FROM author") == kept


def test_copy_as_a_statement_fails_and_costs_the_connection(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(sa.DBAPIError, match="COPY") as caught:
        connection.execute(text("COPY (SELECT 1) TO STDOUT"))
    assert caught.value.connection_invalidated
    assert db.fetch_value("SELECT 1") == 1


def test_a_commit_after_a_failed_statement_is_an_error(engine: Engine) -> None:
    """The server would answer ROLLBACK, and SQLAlchemy would take it for a success."""
    with engine.connect() as connection:
        connection.execute(insert(Author).values(name="A"))
        with pytest.raises(sa.IntegrityError):
            connection.execute(insert(Author).values(name="A"))
        with pytest.raises(sa.InternalError, match="nothing of it was committed"):
            connection.commit()
    assert db.fetch_value("SELECT count(*) FROM author") == 0


def test_a_constraint_may_fail_at_commit(engine: Engine) -> None:
    db.execute("ALTER TABLE book ALTER CONSTRAINT book_author_id_fkey DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(sa.IntegrityError) as caught, engine.begin() as connection:
        connection.execute(insert(Book).values(author_id=7, title="t"))
    assert getattr(caught.value.orig, "sqlstate", None) == "23503"
    assert not caught.value.connection_invalidated


def test_a_connection_lost_in_commit_says_that_the_end_is_unknown(proxied: Engine, wire_proxy: WireProxy) -> None:
    wire_proxy.on("client", b"COMMIT", do="rst", when="answer")
    with pytest.raises(sa.OperationalError, match="unknown whether") as caught, proxied.begin() as connection:
        connection.execute(insert(Author).values(name="A"))
    assert caught.value.connection_invalidated
    assert caught.value.orig is not None
    assert isinstance(caught.value.orig.__cause__, TransactionResolutionUnknown)
    assert db.fetch_value("SELECT count(*) FROM author") == 1


def test_a_session_that_ended_while_idle_ran_no_commit(
    proxied: Engine, wire_proxy: WireProxy, postgres: Postgres, database: str
) -> None:
    held = wire_proxy.on("client", b"COMMIT", do="pause")
    with proxied.connect() as connection, ThreadPoolExecutor() as executor:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 200"))
        connection.execute(insert(Author).values(name="A"))
        done = executor.submit(connection.commit)
        held.wait()
        until(lambda: not sessions(postgres, database))
        wire_proxy.resume()
        with pytest.raises(sa.DBAPIError, match="due to idle-in-transaction timeout") as caught:
            done.result()
    assert "unknown" not in str(caught.value)
    assert caught.value.connection_invalidated
    assert db.fetch_value("SELECT count(*) FROM author") == 0


def test_a_connection_lost_before_commit_is_not_committed(engine: Engine, postgres: Postgres, database: str) -> None:
    with engine.connect() as connection:
        connection.execute(insert(Author).values(name="A"))
        loan: Any = connection.connection.dbapi_connection
        terminate(postgres, *(session.pid for session in sessions(postgres, database)))
        until(lambda: loan._connection.liveness() == "dead")
        with pytest.raises(sa.OperationalError, match="nothing was committed") as caught:
            connection.commit()
    assert caught.value.connection_invalidated
    assert db.fetch_value("SELECT count(*) FROM author") == 0


def test_two_phase_transactions_are_refused(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(sa.InvalidRequestError, match="Two-phase transactions are not supported"):
            connection.begin_twophase()
        with pytest.raises(sa.InvalidRequestError, match="not supported"):
            connection.recover_twophase()
    with Session(engine, twophase=True) as session, pytest.raises(sa.InvalidRequestError, match="not supported"):
        session.execute(text("SELECT 1"))
    with engine.begin() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


# -- errors ------------------------------------------------------------------------------------------


def test_an_error_is_sqlalchemy_s_and_of_the_same_class_with_both_drivers(engine: Engine) -> None:
    kinds: dict[str, type[sa.DBAPIError]] = {
        "INSERT INTO author (id) VALUES (1)": sa.IntegrityError,
        "INSERT INTO book (author_id, title) VALUES (9, '')": sa.IntegrityError,
        "SELECT 1 / 0": sa.DataError,
        "SELECT * FROM nothing": sa.ProgrammingError,
        "SELEC": sa.ProgrammingError,
        "DO $$ BEGIN RAISE serialization_failure; END $$": sa.OperationalError,
        "SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)": sa.OperationalError,
    }
    for statement, kind in kinds.items():
        with engine.connect() as connection, pytest.raises(kind) as caught:
            connection.exec_driver_sql(statement)
        assert type(caught.value) is kind
        assert not caught.value.connection_invalidated
        assert len(getattr(caught.value.orig, "sqlstate", "")) == 5


def test_pg8000_s_errors_have_the_classes_of_psycopg() -> None:
    from psycopg import errors

    from shared.db.dbapi import _CLASSES

    pep249 = "OperationalError ProgrammingError InternalError NotSupportedError DataError IntegrityError".split()
    known = {key[:2]: kind for key, kind in errors._sqlcodes.items() if re.fullmatch("([0-9].|F0|HV|P0|XX)...", key)}
    assert len(known) > 30
    for begin, kind in known.items():
        wanted = next((base.__name__ for base in kind.__mro__ if base.__name__ in pep249), "DatabaseError")
        assert (begin, _CLASSES.get(begin, "DatabaseError")) == (begin, wanted)


def test_an_error_shows_no_parameter(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(sa.DBAPIError) as caught:
        connection.execute(text("SELECT :secret || nothing"), {"secret": "s3cret"})
    assert "s3cret" not in str(caught.value)


# -- with the rest of the project --------------------------------------------------------------------


def test_the_fixture_of_endpoint_tests_undoes_it(rolled_back: None) -> None:
    statement = text("INSERT INTO plans (code, name, price_cents, currency, billing_interval)"
                     " VALUES ('x', 'X', 1, 'EUR', 'month')")  # fmt: skip
    before = db.fetch_value("SELECT count(*) FROM plans")
    with get_engine().begin() as connection:
        connection.execute(statement)
    with pytest.raises(sa.IntegrityError), get_engine().begin() as connection:
        connection.execute(statement)
    with pytest.raises(UniqueViolation):
        db.execute(
            "INSERT INTO plans (code, name, price_cents, currency, billing_interval)"
            " VALUES ('x', 'X', 1, 'EUR', 'month')"
        )
    assert db.fetch_value("SELECT count(*) FROM plans") == before + 1


def test_the_examples_of_the_docs_run(use: Use, driver: str, migrated_database: str) -> None:
    use(migrated_database)
    page = (DOCS / "SQLALCHEMY.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    namespace: dict[str, Any] = {"__name__": "models"}
    for block in blocks:
        exec(block, namespace)
    assert namespace["cheapest"]() == db.fetch_value("SELECT code FROM plans ORDER BY price_cents, code LIMIT 1")
    namespace["rename"]("free", "Gratis")
    assert db.fetch_value("SELECT name FROM plans WHERE code = 'free'") == "Gratis"
    assert namespace["promote"]("nobody@example.com") is False
    db.execute("INSERT INTO users (email, password_hash) VALUES ('a@example.com', '$argon2id$')")
    assert namespace["promote"]("A@example.com") is True
    assert db.fetch_value("SELECT role FROM users WHERE email = 'a@example.com'") == "admin"
    assert list(namespace["emails"]())[-1] == "a@example.com"
    assert db.get_pool().statistics()["in_use"] == 0

"""The fixture for tests of endpoints: whatever they write is gone afterwards."""

from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from shared import db, errors
from shared.db.testing import rolled_back
from shared.settings import reset_settings
from shared.web import Endpoint, Problem
from shared.web.application import application


@pytest.fixture(params=["psycopg", "pg8000"])
def notes(request: pytest.FixtureRequest, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a database with a table of notes, one of them in it, for each driver."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE notes (id int PRIMARY KEY, title text NOT NULL)")
        connection.execute("INSERT INTO notes VALUES (1, 'kept')")
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("DATABASE_DRIVER", request.param)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    return database


def in_the_database(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id, title FROM notes ORDER BY id").fetchall()


def titles() -> list[str]:
    return [row["title"] for row in db.fetch_all("SELECT title FROM notes ORDER BY id")]


def client() -> TestClient:
    endpoint = Endpoint("/api/notes/{id}")

    @endpoint.put
    def write(id: int) -> Any:
        db.execute("INSERT INTO notes VALUES (%(id)s, 'plain')", {"id": id})
        return titles()

    @endpoint.post
    def write_two(id: int) -> Any:
        with db.transaction() as tx:
            tx.execute("INSERT INTO notes VALUES (%(id)s, 'first')", {"id": id})
            tx.execute("INSERT INTO notes VALUES (%(id)s, 'second')", {"id": id + 1})
        return titles()

    @endpoint.patch
    def fail(id: int) -> Any:
        with db.transaction() as tx:
            tx.execute("UPDATE notes SET title = 'changed'")
            raise Problem(409, "changed my mind")

    @endpoint.delete
    def delete(id: int) -> None:
        db.execute("DELETE FROM notes WHERE id = %(id)s", {"id": id})

    return TestClient(application([endpoint]))


def test_what_an_endpoint_writes_is_seen_and_then_gone(notes: str) -> None:
    with rolled_back():
        assert client().put("/api/notes/2").json() == ["kept", "plain"]
        assert client().post("/api/notes/3").json() == ["kept", "plain", "first", "second"]
        assert client().delete("/api/notes/1").status_code == 204
        assert titles() == ["plain", "first", "second"]
        assert in_the_database(notes) == [(1, "kept")]

    assert in_the_database(notes) == [(1, "kept")]
    assert titles() == ["kept"]


def test_a_statement_that_fails_undoes_only_itself(notes: str) -> None:
    with rolled_back():
        assert client().put("/api/notes/2").status_code == 200
        assert client().put("/api/notes/2").status_code == 409
        with pytest.raises(errors.NotNullViolation):
            db.execute("INSERT INTO notes VALUES (5, NULL)")
        assert titles() == ["kept", "plain"]

    assert in_the_database(notes) == [(1, "kept")]


def test_a_transaction_that_fails_undoes_all_of_itself(notes: str) -> None:
    with rolled_back():
        assert client().put("/api/notes/2").status_code == 200
        assert client().post("/api/notes/1").status_code == 409
        assert client().patch("/api/notes/1").status_code == 409
        assert titles() == ["kept", "plain"]

        def swallow() -> None:
            with db.transaction() as tx:
                tx.execute("UPDATE notes SET title = 'changed'")
                with pytest.raises(errors.UniqueViolation):
                    tx.execute("INSERT INTO notes VALUES (1, 'again')")

        with pytest.raises(errors.DatabaseError, match="nothing of it was committed"):
            swallow()
        assert titles() == ["kept", "plain"]

    assert in_the_database(notes) == [(1, "kept")]


def test_savepoints_streams_and_many_statements(notes: str) -> None:
    with rolled_back():
        with db.transaction() as tx:
            with pytest.raises(errors.UniqueViolation), tx.savepoint():
                tx.execute("INSERT INTO notes VALUES (1, 'again')")
            tx.execute("INSERT INTO notes VALUES (2, 'after')")
        db.execute_many("INSERT INTO notes VALUES (%(id)s, 'many')", [{"id": 3}, {"id": 4}])
        assert [row["id"] for row in db.stream("SELECT id FROM notes ORDER BY id", batch=2)] == [1, 2, 3, 4]
        with db.transaction(isolation="serializable", read_only=False) as tx:
            assert tx.fetch_value("SELECT count(*) FROM notes") == 4

    assert in_the_database(notes) == [(1, "kept")]


def test_a_test_that_fails_leaves_nothing_either(notes: str) -> None:
    def fail() -> None:
        with rolled_back():
            client().put("/api/notes/2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert in_the_database(notes) == [(1, "kept")]
    assert titles() == ["kept"]


def test_the_fixture_is_made_of_it(rolled_back: None) -> None:
    assert db.fetch_value("SELECT count(*) FROM users") is not None
    db.execute("DELETE FROM users")
    assert db.fetch_value("SELECT count(*) FROM users") == 0


def test_the_fixture_begins_anew_in_each_test(rolled_back: None) -> None:
    assert db.fetch_value("SELECT count(*) FROM users") == 1  # the admin user that the migration seeded

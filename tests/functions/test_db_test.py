"""GET /api/db/test: the production guide's JSON, and no more than that."""

import json
import re

import psycopg
import pytest
from starlette.testclient import TestClient

from functions import db_test
from shared import db
from shared.db.schema_head import TABLES
from shared.settings import reset_settings
from shared.web.application import application
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy


def ask(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[int, str, dict[str, bool]]:
    """Return status code, `status` and `tables` of the answer, once its form is checked."""
    db.close_db(grace=0)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reset_settings()
    response = TestClient(application([db_test.endpoint])).get("/api/db/test")

    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    assert list(document) == ["status", "timestamp", "tables"]
    assert response.text == json.dumps(document, separators=(",", ":"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["timestamp"])
    return response.status_code, document["status"], document["tables"]


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_every_table_is_there(migrated_database: str, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    code, status, tables = ask(monkeypatch, DATABASE_URL=migrated_database, DATABASE_DRIVER=driver)

    assert (code, status) == (200, "connected")
    assert list(tables)[:5] == ["users", "sessions", "plans", "subscriptions", "throttles"]
    assert all(tables.values())
    assert tuple(tables) == TABLES


def test_a_database_without_tables(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, DATABASE_URL=database) == (503, "tables_missing", dict.fromkeys(TABLES, False))


def test_a_table_is_missing(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(migrated_database) as connection:
        connection.execute("DROP TABLE sessions")

    expected = {**dict.fromkeys(TABLES, True), "sessions": False}
    assert ask(monkeypatch, DATABASE_URL=migrated_database) == (503, "tables_missing", expected)


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_a_database_that_cannot_be_reached(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    wrong = [
        f"postgresql://u:p@127.0.0.1:{free_port()}/db",
        f"postgresql://app:wrong@127.0.0.1:{postgres.port}/postgres",
        f"{database}_that_is_not_there",
        "nonsense",
    ]
    for url in wrong:
        assert ask(monkeypatch, DATABASE_URL=url, DATABASE_DRIVER=driver) == (503, "disconnected", {}), url


@pytest.mark.parametrize("variables", [{"APP_ENV": "production"}, {"APP_ENV": "nonsense"}])
def test_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    assert ask(monkeypatch, **variables) == (503, "disconnected", {})


def test_a_connection_that_is_lost(database: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    wire_proxy.on("client", b"to_regclass", do="rst")

    assert ask(monkeypatch, DATABASE_URL=wire_proxy.url(database)) == (503, "disconnected", {})


def test_a_busy_pool_is_told_as_busy(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("DATABASE_POOL_MAX", "1")
    monkeypatch.setenv("DATABASE_POOL_TIMEOUT", "0.1")
    reset_settings()

    with db.transaction() as tx:
        tx.execute("SELECT 1")
        response = TestClient(application([db_test.endpoint])).get("/api/db/test")

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"


def test_it_tells_nothing_besides(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE canary (id int)")

    monkeypatch.setenv("DATABASE_URL", database)
    reset_settings()
    response = TestClient(application([db_test.endpoint])).get("/api/db/test")

    assert "canary" not in response.text
    assert "127.0.0.1" not in response.text

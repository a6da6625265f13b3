"""One line a request, with what it cost: as the wire saw it."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from shared import db, request_log
from shared.log import JsonFormatter
from shared.settings import reset_settings
from shared.web import Endpoint, Problem
from shared.web.application import application
from tests.servers.proxy import WireProxy

costly = Endpoint("/api/things/{id}")
probe = Endpoint("/api/probe", probe=True)


@costly.get
def read(id: int) -> db.Row | None:
    with db.transaction() as tx:
        tx.execute("SELECT 1")
        tx.fetch_all("SELECT %(n)s::int", {"n": id})
    return db.fetch_one("SELECT 1 AS one")


@costly.post
def fail(id: int) -> None:
    logging.getLogger("shared.test").warning("on the way")
    raise Problem(409, "No.")


@costly.put
def many(id: int) -> None:
    db.execute_many("SELECT %(n)s::int", [{"n": 1}])
    list(db.stream("SELECT generate_series(1, 3)", batch=2))


@probe.get
def look() -> dict[str, bool]:
    return {"ok": True}


@probe.post
def bad() -> None:
    raise Problem(503, "No.")


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(application([costly, probe])) as client:
        yield client


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == request_log.__name__]


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_a_line_says_what_a_request_cost(
    client: TestClient,
    database: str,
    wire_proxy: WireProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    driver: str,
) -> None:
    for name, value in {"DATABASE_URL": wire_proxy.url(database), "DATABASE_DRIVER": driver, "APP_ENV": "test"}.items():
        monkeypatch.setenv(name, value)
    reset_settings()
    db.fetch_value("SELECT 1")
    caplog.clear()

    for method, flights in (("GET", None), ("PUT", None)):
        with wire_proxy.count() as count:
            client.request(method, "/api/things/7?token=canary", headers={"X-Request-Id": "abc-1"})
        (line,) = lines(caplog)
        assert line["flights"] == count.flights > 1, flights
        assert (line["method"], line["path"], line["request_id"]) == (method, "/api/things/{id}", "abc-1")
        assert line["status"] in (200, 204)
        assert 0 <= line["pool_wait_ms"] <= line["duration_ms"]
        assert "canary" not in json.dumps(line)
        caplog.clear()


def test_what_is_logged_on_the_way_carries_the_request_s_id(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[str] = []

    class Writing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(JsonFormatter().format(record))

    handler = Writing()
    logging.getLogger().addHandler(handler)
    try:
        client.post("/api/things/1")
        client.post("/api/things/2")
    finally:
        logging.getLogger().removeHandler(handler)
    found = [json.loads(line) for line in written if json.loads(line)["logger"].startswith("shared.")]
    assert [line["message"].partition(" in ")[0] for line in found] == 2 * ["on the way", "POST /api/things/{id} 409"]
    first, second = found[0]["request_id"], found[2]["request_id"]
    assert [line["request_id"] for line in found] == [first, first, second, second]
    assert first != second
    assert request_log.request_id() is None


def test_a_probe_is_told_only_where_it_failed(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/api/probe")
    assert lines(caplog) == []
    client.post("/api/probe")
    assert [line["status"] for line in lines(caplog)] == [503]


def test_waiting_for_a_connection_is_told(
    client: TestClient, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.shared.db.watching import until

    for name, value in {"DATABASE_URL": database, "DATABASE_POOL_MAX": "1", "APP_ENV": "test"}.items():
        monkeypatch.setenv(name, value)
    reset_settings()
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            tx.execute("SELECT 1")
            waiting = pool.submit(client.get, "/api/things/1")
            until(lambda: db.get_pool().statistics()["waiting"])
            tx.execute("SELECT pg_sleep(0.1)")
        waiting.result(30)
    (line,) = lines(caplog)
    assert line["pool_wait_ms"] >= 100

"""GET /api/health: the production guide's JSON, and an answer in time whatever is wrong."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from starlette.testclient import TestClient

import app
from functions import health
from shared import __version__, db
from shared.settings import reset_settings
from shared.web import Endpoint
from shared.web.application import application
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy

PROMISE = 2.0  # seconds
SLOWNESS = 1.0  # seconds that a busy machine may add to it


@pytest.fixture
def client() -> Iterator[TestClient]:
    """Return a client of the deployed app."""
    with TestClient(app.app) as client:
        yield client


def use(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reset_settings()


def assert_guides_json(client: TestClient, status: str, database: str, code: int) -> None:
    begun, clock = time.monotonic(), datetime.now(UTC)
    response = client.get("/api/health")

    assert time.monotonic() - begun < PROMISE + SLOWNESS
    assert response.status_code == code
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    timestamp = document["timestamp"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
    assert abs(datetime.fromisoformat(timestamp) - clock) < timedelta(minutes=1)
    # As the guide writes it, order included, and nothing besides.
    guide = f"""
        {{
          "status": "{status}",
          "timestamp": "{timestamp}",
          "version": "{__version__}",
          "services": {{
            "database": "{database}"
          }}
        }}
    """
    assert response.text == json.dumps(json.loads(guide), separators=(",", ":"))


def assert_ok(client: TestClient) -> None:
    assert_guides_json(client, "ok", "connected", 200)


def assert_degraded(client: TestClient) -> None:
    assert_guides_json(client, "degraded", "disconnected", 503)


def test_a_database_that_answers(client: TestClient, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, DATABASE_URL=database)

    assert_ok(client)
    assert client.head("/api/health").status_code == 200


@pytest.mark.parametrize(
    "variables",
    [
        {"APP_ENV": "production"},
        {"AWS_LAMBDA_FUNCTION_NAME": "health"},
        {"APP_ENV": "nonsense"},
        {"DATABASE_URL": "nonsense"},
        {"DATABASE_URL": "postgresql://u:p%@127.0.0.1/db"},
        {"DATABASE_URL": "postgresql://u:p@db.example.com/db?sslmode=disable"},
        {"DATABASE_SSL": "true", "DATABASE_DISABLE_SSL": "true"},
    ],
)
def test_a_wrong_configuration(client: TestClient, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, **variables)

    assert_degraded(client)
    assert client.head("/api/health").status_code == 503


def test_a_database_that_refuses(client: TestClient, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/db")
    assert_degraded(client)

    db.close_db(grace=0)
    use(monkeypatch, DATABASE_URL=f"postgresql://app:wrong@127.0.0.1:{postgres.port}/postgres")
    assert_degraded(client)


def test_a_database_that_is_silent(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        use(monkeypatch, DATABASE_URL=f"postgresql://u:p@127.0.0.1:{listener.getsockname()[1]}/db")

        assert_degraded(client)


def test_a_database_that_comes_back(
    client: TestClient, own_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=own_postgres.admin_url(), HEALTH_CACHE_SECONDS="0")
    assert_ok(client)

    own_postgres.server.stop()
    assert_degraded(client)
    assert "retry-after" not in client.get("/api/health").headers

    own_postgres.server.start(die_with_parent=True)
    assert_ok(client)
    db.close_db(grace=0)


def test_probes_cannot_hammer_the_database(
    client: TestClient, database: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=wire_proxy.url(database), HEALTH_CACHE_SECONDS="60")
    assert_ok(client)

    with wire_proxy.count() as count:
        for _ in range(5):
            assert_ok(client)
    assert count.flights == 0
    wire_proxy.refuse()
    wire_proxy.cut()
    assert_ok(client)  # it answered a moment ago, and that is what it says
    use(monkeypatch, HEALTH_CACHE_SECONDS="0")
    assert_degraded(client)
    use(monkeypatch, HEALTH_CACHE_SECONDS="60")
    wire_proxy.accept()
    db.close_db(grace=0)  # another pool may lead to another database
    with wire_proxy.count() as count:
        assert_ok(client)
    assert count.flights > 0


def test_a_failure_is_not_repeated(
    client: TestClient, database: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=wire_proxy.url(database), HEALTH_CACHE_SECONDS="60")
    wire_proxy.refuse()
    assert_degraded(client)
    wire_proxy.accept()
    assert_ok(client)


def test_a_probe_for_the_process_alone_touches_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"postgresql://u:p@127.0.0.1:{free_port()}/db", "nonsense"):
        db.close_db(grace=0)
        use(monkeypatch, DATABASE_URL=url)
        response = client.get("/api/health?live=1")
        assert (response.status_code, response.json()["status"]) == (200, "ok")
        assert set(response.json()) == {"status", "timestamp", "version"}
        assert not db.primary.has_pool
        assert client.get("/api/health?live=0").status_code == 503


def test_a_database_that_wakes_up_is_worth_another_try(
    client: TestClient, database: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=wire_proxy.url(database))
    wire_proxy.silence()
    assert_degraded(client)
    assert client.get("/api/health").headers["retry-after"] == "5"


def test_a_schema_that_is_behind_is_logged_once(
    client: TestClient,
    database: str,
    migrated_database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for url, told in ((database, 1), (migrated_database, 0)):
        db.close_db(grace=0)
        use(monkeypatch, DATABASE_URL=url, HEALTH_CACHE_SECONDS="0")
        caplog.clear()
        for _ in range(3):
            assert_ok(client)
        assert sum("behind" in message for message in caplog.messages) == told


def test_every_other_thread_is_busy(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, DATABASE_URL=database)
    release, busy = threading.Event(), threading.Semaphore(0)
    slow = Endpoint("/api/slow")

    @slow.get
    def block() -> None:
        busy.release()
        release.wait(30)

    async def ask() -> int:
        transport = httpx2.ASGITransport(application([health.endpoint, slow]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            ordinary = [asyncio.ensure_future(client.get("/api/slow")) for _ in range(40)]
            try:
                for _ in ordinary:
                    assert await asyncio.to_thread(busy.acquire, timeout=30)
                return (await asyncio.wait_for(client.get("/api/health"), 30)).status_code
            finally:
                release.set()
                await asyncio.gather(*ordinary)

    assert asyncio.run(ask()) == 200


def test_in_a_test_of_an_endpoint(client: TestClient, rolled_back: None) -> None:
    assert_ok(client)


def test_the_commit_is_told_in_a_header_only(
    client: TestClient, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, DATABASE_URL=database, APP_COMMIT="abc123")
    app.app._app = None  # type: ignore[attr-defined]  # as in a process that begins

    assert_ok(client)
    assert client.get("/api/health").headers["x-deployed-commit"] == "abc123"
    app.app._app = None  # type: ignore[attr-defined]


def test_it_takes_no_other_method(client: TestClient) -> None:
    response = client.post("/api/health")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"

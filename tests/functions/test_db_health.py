"""GET /api/db/health: for the operator alone, from a short cache, in the shape of health+json."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

import app
from functions import db_health
from shared.health.topics import TOPICS
from shared.settings import reset_settings
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy

TOKEN = "an operator's token of good length"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Return a client of the deployed app, which knows the token."""
    monkeypatch.setenv("APP_ENV", "test")
    monkeypatch.setenv("OPERATOR_TOKEN", TOKEN)
    with TestClient(app.app) as client:
        yield client


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    reset_settings()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \xfc"},
    ],
)
def test_nobody_else_is_let_in(client: TestClient, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"postgresql://app:x@127.0.0.1:{free_port()}/db")  # nobody asks it

    response = client.get(
        "/api/db/health", headers={name.encode(): value.encode("latin-1") for name, value in headers.items()}
    )

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="operator"'
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("shown", ["", "None", " ", TOKEN])
def test_without_a_token_nobody_is_let_in(client: TestClient, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPERATOR_TOKEN")
    reset_settings()
    assert client.get("/api/db/health", headers={"Authorization": f"Bearer {shown}"}).status_code == 401


def test_a_token_that_can_be_guessed_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATOR_TOKEN", "short")
    reset_settings()
    assert client.get("/api/db/health", headers={"Authorization": "Bearer short"}).status_code == 500


def test_the_operator_sees_every_check(
    client: TestClient, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, migrated_database)

    response = client.get("/api/db/health", headers={"Authorization": f"bearer {TOKEN}"})

    # The tests' server has fsync off.
    assert (response.status_code, response.json()["status"]) == (503, "fail")
    assert response.headers["content-type"] == "application/health+json"
    assert response.headers["cache-control"] == "no-store"
    checks = response.json()["checks"]
    assert list(checks) == [f"{topic}:{check.name}" for topic, found in TOPICS.items() for check in found]
    (size,) = checks["storage:database_size"]
    assert (size["status"], size["observedUnit"], size["componentType"]) == ("pass", "bytes", "datastore")
    assert size["observedValue"] > 1_000_000
    assert "output" not in size
    (settings,) = checks["settings:settings"]
    assert (settings["status"], settings["output"]) == ("fail", settings["summary"])
    (statements,) = checks["statements:slow_statements"]
    assert statements["verdict"] == "unknown"
    assert "status" not in statements
    assert client.head("/api/db/health", headers=SHOWN).status_code == 503


def test_those_who_ask_together_cost_one_report(
    client: TestClient, database: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, wire_proxy.url(database))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/api/db/health", headers=SHOWN).json(), range(8)))
    with wire_proxy.count() as count:
        again = client.get("/api/db/health", headers=SHOWN).json()

    assert all(answer == again for answer in answers)
    assert wire_proxy.total.connections == 1
    assert count.flights == 0


def test_a_report_of_another_database_is_not_given(
    client: TestClient, database: str, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared import db

    def schema(url: str) -> str:
        db.close_db(grace=0)
        use(monkeypatch, url)
        found: str = client.get("/api/db/health", headers=SHOWN).json()["checks"]["schema:schema"][0]["observedValue"]
        return found

    assert [schema(database), schema(migrated_database)] == ["behind", "equal"]


@pytest.mark.parametrize(
    "url",
    ["postgresql://canary:canary-secret@127.0.0.1:{port}/canary-db", "postgresql://canary:canary-secret@host:x/y"],
)
def test_a_database_that_cannot_be_reached_fails_and_nothing_leaks(
    client: TestClient, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, url.format(port=free_port()))

    response = client.get("/api/db/health", headers=SHOWN)

    assert (response.status_code, response.json()["status"]) == (503, "fail")
    assert any(record.name == "shared.health.latest" for record in caplog.records)
    assert "canary" not in response.text
    assert "127.0.0.1" not in response.text


def test_what_is_shown_holds_no_secret(
    client: TestClient, database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    use(monkeypatch, database)
    with psycopg.connect(database) as other:
        other.execute("SELECT 'canary-of-somebody'")
        text = client.get("/api/db/health", headers=SHOWN).text

    assert "SELECT ?" in text
    for secret in ("canary-of-somebody", APP_PASSWORD, json.dumps(APP_PASSWORD)[1:-1], TOKEN, "127.0.0.1"):
        assert secret not in text


def test_on_lambda(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 9000

    monkeypatch.setenv("OPERATOR_TOKEN", TOKEN)
    monkeypatch.setenv("APP_ENV", "test")
    use(monkeypatch, database)
    http = {"method": "GET", "path": "/api/db/health", "sourceIp": "192.0.2.1", "protocol": "HTTP/1.1"}
    event = {
        "version": "2.0", "rawPath": "/api/db/health", "rawQueryString": "",
        "headers": {"authorization": f"Bearer {TOKEN}"},
        "requestContext": {"http": http}, "isBase64Encoded": False,
    }  # fmt: skip
    answer = db_health.handler(event, Context())
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (503, False)
    assert "connection:connection" in json.loads(answer["body"])["checks"]
    answer = db_health.handler({**event, "headers": {}}, Context())
    assert answer["statusCode"] == 401

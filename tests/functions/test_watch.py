"""GET /api/watch: for a scheduler with the secret, or for the operator; and by a schedule of EventBridge."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

import app
from functions import watch
from shared.settings import reset_settings

SECRET = "the secret that the cron shows"
TOKEN = "an operator's token of good length"
EVENT = {"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 20_000)

Use = Callable[..., TestClient]


@pytest.fixture
def use(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Return a function that sets variables and gives a client of the app."""
    monkeypatch.setenv("DATABASE_URL", migrated_database)
    monkeypatch.setenv("APP_ENV", "test")
    with TestClient(app.app) as client:

        def set_variables(**variables: str) -> TestClient:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            reset_settings()
            return client

        yield set_variables


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("shown", [SECRET, TOKEN])
def test_the_cron_and_the_operator_are_let_in(use: Use, shown: str) -> None:
    response = use(CRON_SECRET=SECRET, OPERATOR_TOKEN=TOKEN).get("/api/watch", headers=bearer(shown))

    # The tests' server runs without fsync, which fails a check.
    assert response.status_code == 503
    assert response.json()["status"] == "fail"
    assert any("fsync" in change for change in response.json()["changes"])


@pytest.mark.parametrize("headers", [{}, bearer(""), bearer("None"), bearer(SECRET), bearer("undefined")])
def test_where_nothing_is_set_nobody_is_let_in(use: Use, headers: dict[str, str]) -> None:
    assert use().get("/api/watch", headers=headers).status_code == 401


@pytest.mark.parametrize("headers", [{}, bearer(""), bearer(SECRET + "x"), bearer(SECRET[:-1])])
def test_nobody_else_is_let_in(use: Use, headers: dict[str, str]) -> None:
    assert use(CRON_SECRET=SECRET).get("/api/watch", headers=headers).status_code == 401


def test_a_second_call_in_the_same_minute_is_answered_and_does_nothing(use: Use) -> None:
    client = use(CRON_SECRET=SECRET)

    # Of three, two are in the same minute.
    statuses = [client.get("/api/watch", headers=bearer(SECRET)).json()["status"] for _ in range(3)]

    assert statuses[0] == "fail"
    assert "skipped" in statuses[1:]


def test_a_schedule_of_eventbridge_looks_without_a_token(use: Use) -> None:
    use()

    assert watch.handler(EVENT, CONTEXT)["status"] == "fail"
    assert watch.handler({"warm": True}, CONTEXT) == {"ignored": True}

"""What the tests of connections share: each driver in turn, and the face on a given database."""

from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from shared import db, settings
from tests.servers.postgres import Postgres

Use = Callable[..., None]


@pytest.fixture(params=["psycopg", "pg8000"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Literal["psycopg", "pg8000"]:
    """Run the test with each driver."""
    monkeypatch.setenv("DATABASE_DRIVER", request.param)
    driver: Literal["psycopg", "pg8000"] = request.param
    return driver


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Point `shared.db` to a URL, with further variables: use(url, APP_ENV="production")."""

    def use(url: str, **variables: str) -> None:
        db.close_db(grace=0)
        monkeypatch.setenv("APP_ENV", "test")
        for name, value in {"DATABASE_URL": url, **variables}.items():
            monkeypatch.setenv(name, value)
        settings.reset_settings()

    return use


@pytest.fixture(scope="module")
def lasting_database(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a database that all tests of a module share, for those that do not look who is connected."""
    with postgres.database() as name:
        yield postgres.url(name)

"""What the tests of connections share: the face on a given database."""

from collections.abc import Callable, Iterator

import pytest

from tests.servers.postgres import Postgres

Use = Callable[..., None]


@pytest.fixture
def use(use: Use) -> Use:
    """Point `shared.db` to a URL, with further variables: use(url, APP_ENV="production")."""
    return lambda url, **variables: use(DATABASE_URL=url, **variables)


@pytest.fixture(scope="module")
def lasting_database(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a database that all tests of a module share, for those that do not look who is connected."""
    with postgres.database() as name:
        yield postgres.url(name)

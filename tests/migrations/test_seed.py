"""Essential data: the plans and one admin, once, and never a known password in production."""

from collections.abc import Callable

import pytest

from migrations import runner
from migrations.seed import PLANS
from shared.errors import ConfigurationError
from shared.settings import DEFAULT_ADMIN_PASSWORD
from shared.web.auth import hash_password, verify_password
from tests.migrations import catalog

ADMINS = "SELECT email, password_hash, must_change_password FROM users WHERE role = 'admin'"


def test_the_first_deploy_adds_plans_and_an_admin(url: str, said: list[str]) -> None:
    runner.deploy(report=said.append)

    ((email, password_hash, must_change),) = catalog.rows(url, ADMINS)
    assert email == "admin@example.com"
    assert verify_password(DEFAULT_ADMIN_PASSWORD, str(password_hash))
    assert must_change is True
    assert catalog.rows(url, "SELECT code, price_cents, features FROM plans ORDER BY id") == [
        (code, price, features) for code, _, price, _, _, features in PLANS
    ]
    assert DEFAULT_ADMIN_PASSWORD not in "\n".join(said)


def test_email_and_password_come_from_the_environment(url: str, use: Callable[..., None], said: list[str]) -> None:
    use(ADMIN_EMAIL="Root@Example.org", ADMIN_INITIAL_PASSWORD="correct horse battery", APP_ENV="production")

    runner.deploy(report=said.append)

    ((email, password_hash, must_change),) = catalog.rows(url, ADMINS)
    assert (email, must_change) == ("Root@Example.org", True)
    assert verify_password("correct horse battery", str(password_hash))


def test_what_is_there_is_never_changed(url: str, use: Callable[..., None], said: list[str]) -> None:
    """Any admin will do, and any plan: a deleted sample plan does not come back, a changed password stays."""
    runner.deploy(report=said.append)
    catalog.rows(url, "DELETE FROM plans WHERE code <> 'free'")
    catalog.rows(url, "UPDATE plans SET name = 'Ours'")
    catalog.rows(url, "UPDATE users SET email = 'boss@example.com', password_hash = '$argon2id$changed'")
    before = catalog.contents(url)
    use(ADMIN_INITIAL_PASSWORD="another password", ADMIN_EMAIL="new@example.com")

    runner.deploy(report=said.append)

    assert catalog.contents(url) == before


def test_a_seed_that_failed_is_made_up_by_the_next_run(url: str, said: list[str]) -> None:
    runner.deploy(report=said.append)
    catalog.rows(url, "DELETE FROM plans")
    catalog.rows(url, "DELETE FROM users")

    runner.deploy(report=said.append)

    assert catalog.rows(url, "SELECT count(*) FROM plans") == [(len(PLANS),)]
    assert catalog.rows(url, "SELECT count(*) FROM users") == [(1,)]


@pytest.mark.parametrize("environment", ["production", "preview"])
@pytest.mark.parametrize(
    ("password", "trouble"),
    [
        (None, "ADMIN_INITIAL_PASSWORD is not set"),
        (DEFAULT_ADMIN_PASSWORD, "is the documented default"),
        ("tiny-pw", "is shorter than 12 characters"),
    ],
)
def test_production_refuses_a_weak_password_before_anything_is_changed(
    url: str, use: Callable[..., None], said: list[str], environment: str, password: str | None, trouble: str
) -> None:
    use(APP_ENV=environment, **({"ADMIN_INITIAL_PASSWORD": password} if password else {}))

    for run in (runner.deploy, runner.dry_run):
        with pytest.raises(ConfigurationError, match=trouble) as caught:
            run(report=said.append)

    assert password is None or password not in str(caught.value)
    assert catalog.tables(url) == []


def test_production_needs_no_password_once_there_is_an_admin(
    url: str, use: Callable[..., None], said: list[str]
) -> None:
    use(APP_ENV="production", ADMIN_INITIAL_PASSWORD="correct horse battery")
    runner.deploy(report=said.append)
    use(ADMIN_INITIAL_PASSWORD="")
    catalog.rows(url, "DELETE FROM plans")  # so that there is something to do

    runner.deploy(report=said.append)


def test_an_ordinary_user_with_the_admin_s_address_is_left_alone(url: str, said: list[str]) -> None:
    runner.deploy(report=said.append)
    catalog.rows(url, "UPDATE users SET role = 'user', email = 'ADMIN@example.com'")
    before = catalog.contents(url)

    runner.deploy(report=said.append)

    assert catalog.contents(url) == before
    assert any(line.startswith("Warning: there is no admin user") for line in said)


def test_a_wrong_address_is_refused_before_anything_is_changed(
    url: str, use: Callable[..., None], said: list[str]
) -> None:
    use(ADMIN_EMAIL="admin")

    with pytest.raises(ConfigurationError, match="ADMIN_EMAIL"):
        runner.deploy(report=said.append)

    assert catalog.tables(url) == []


def test_passwords_are_salted_and_verified() -> None:
    first, second = hash_password("sécret 100%"), hash_password("sécret 100%")

    assert first != second
    assert first.startswith("$argon2id$")
    assert verify_password("sécret 100%", first)
    assert not verify_password("secret 100%", first)
    assert not verify_password("x", "no hash")
    assert not verify_password("x", "")

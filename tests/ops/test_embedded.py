"""The embedded development server, each in a folder of its own."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ops.embedded import EmbeddedServer, find_running, use_if_running
from shared.errors import LocalEnvironmentError, Refused
from shared.settings import get_settings, reset_settings
from tests.ops.checkout import Checkout, entered_by_all
from tests.servers.process import free_port


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the POSTGRES_PORT that is set for this test."""
    port = free_port()
    monkeypatch.setenv("POSTGRES_PORT", str(port))
    reset_settings()
    return port


@pytest.fixture
def embedded(folder: Path, wanted: int) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    yield server
    server.stop()


def test_application_role_owns_its_database_and_is_no_superuser(embedded: EmbeddedServer, wanted: int) -> None:
    running = embedded.start(die_with_parent=True)
    assert running.started
    assert running.url.port == wanted
    with psycopg.connect(running.url.render(password=True)) as connection:
        row = connection.execute(
            "SELECT r.rolname, r.rolsuper, d.datname FROM pg_roles r JOIN pg_database d ON d.datdba = r.oid"
            " WHERE r.rolname = current_user"
        ).fetchone()
        connection.execute("CREATE TABLE t (id int)")
    assert row == ("chatmaps", False, "chatmaps")


def test_a_new_password_and_database_are_taken_over(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start(die_with_parent=True)
    embedded.stop()
    monkeypatch.setenv("POSTGRES_PASSWORD", "it's [new] @ll")
    monkeypatch.setenv("POSTGRES_DB", "other db")
    reset_settings()
    running = embedded.start(die_with_parent=True)
    with psycopg.connect(running.url.render(password=True)) as connection:
        assert connection.info.dbname == "other db"
    assert "it's [new] @ll" not in (embedded.data / "postgres.log").read_text()


def test_two_checkouts_at_once_and_each_keeps_its_port(embedded: EmbeddedServer, wanted: int) -> None:
    steps: list[str] = []
    with entered_by_all() as other_folder:
        other = EmbeddedServer(other_folder, steps.append)
        first, second = embedded.start(die_with_parent=True), other.start(die_with_parent=True)
        try:
            assert first.url.port == wanted
            assert second.url.port > wanted
            assert f"PostgreSQL uses port {second.url.port}, because {wanted} is taken" in steps
            assert find_running(other_folder) == second.url
            embedded.stop()
            other.stop()
            # The first one's port is free now, and the second does not take it.
            assert other.start(die_with_parent=True).url.port == second.url.port
            assert embedded.start(die_with_parent=True).url.port == wanted
        finally:
            other.stop()


def test_running_data_is_not_erased(embedded: EmbeddedServer) -> None:
    running = embedded.start(die_with_parent=True)
    with pytest.raises(Refused, match=f"process {running.pid}"):
        embedded.erase()
    (embedded.data / "other.txt").write_text("not ours")
    assert embedded.stop()
    embedded.erase()
    assert not (embedded.data / "postgres").exists()
    assert (embedded.data / "other.txt").exists()
    assert not embedded.stop()


def test_lost_superuser_password_is_explained(embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start(die_with_parent=True)
    (embedded.data / "postgres.superuser").unlink()
    monkeypatch.setenv("POSTGRES_PASSWORD", "changed")
    reset_settings()
    with pytest.raises(LocalEnvironmentError, match="Neither POSTGRES_USER nor the superuser can log in"):
        embedded.start(die_with_parent=True)


def test_commands_start_find_and_stop_the_server(checkout: Checkout) -> None:
    assert json.loads(checkout.db("postgres", "status", "--json"))["running"] is False
    assert "Started: postgresql://chatmaps:********@127.0.0.1" in checkout.db("postgres", "start")
    assert "Already running" in checkout.db("postgres", "start")
    status = json.loads(checkout.db("postgres", "status", "--json"))
    assert status["running"] is True
    # Another shell, which knows neither the port nor a DATABASE_URL.
    assert checkout.db("url", POSTGRES_PORT="1").startswith(status["url"])
    assert "Stopped" in checkout.db("postgres", "stop")
    assert "not running" in checkout.db("postgres", "stop")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}, "There are no PostgreSQL server binaries for this platform"),
        ({"PIP_INDEX_URL": "http://127.0.0.1:1/simple"}, "The package registry cannot be reached"),
    ],
    ids=["no wheel", "no registry"],
)
def test_binaries_that_cannot_be_installed(checkout: Checkout, variables: dict[str, str], message: str) -> None:
    requirements = checkout.root / "requirements-postgres.txt"
    requirements.write_text(re.sub(r"==[\d.]+", "==99.0.0", requirements.read_text()))
    printed = checkout.db("postgres", "start", code=LocalEnvironmentError.exit_code, **variables)
    assert message in printed
    assert "Traceback" not in printed


def test_production_never_uses_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    reset_settings()
    use_if_running()
    assert "DATABASE_URL" not in os.environ
    assert get_settings().is_production_like

"""docker-compose.production.yml keeps the promises of the production guide, and PostgreSQL 16 takes its settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from shared.settings import VARIABLES
from tests.servers import postgres as servers

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.production.yml"


@pytest.fixture
def compose() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return config


@pytest.fixture
def database_service(compose: dict[str, Any]) -> dict[str, Any]:
    service: dict[str, Any] = compose["services"]["db"]
    return service


def server_settings(service: dict[str, Any]) -> dict[str, str]:
    """Give the settings on the server's command line."""
    words = [word for word in service["command"] if word not in ("postgres", "-c")]
    return dict(word.split("=", 1) for word in words)


def test_it_is_the_postgresql_of_the_guide(database_service: dict[str, Any]) -> None:
    assert database_service["image"] == "postgres:16-alpine"
    assert database_service["restart"] == "unless-stopped"


def test_it_listens_on_this_machine_only(database_service: dict[str, Any]) -> None:
    assert database_service["ports"] == ["127.0.0.1:5432:5432"]
    assert "network_mode" not in database_service


def test_the_data_is_in_a_named_volume(compose: dict[str, Any], database_service: dict[str, Any]) -> None:
    volume, _, path = database_service["volumes"][0].partition(":")
    assert path == "/var/lib/postgresql/data"
    assert volume in compose["volumes"]


def test_secrets_have_no_defaults(database_service: dict[str, Any]) -> None:
    environment = database_service["environment"]
    for name in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"):
        assert re.fullmatch(rf"\$\{{{name}:\?set {name}[^}}]*\}}", environment[name]), "compose must stop and name it"
        assert name in {variable.name for variable in VARIABLES}
    assert "32 or more characters" in environment["POSTGRES_PASSWORD"]
    text = FILE.read_text("utf-8")
    defaults = [variable.default for variable in VARIABLES if variable.name == "POSTGRES_PASSWORD"]
    assert not [default for default in defaults if default in text]


def test_it_is_healthy_when_it_takes_connections(database_service: dict[str, Any]) -> None:
    check = database_service["healthcheck"]
    assert check["test"] == ["CMD-SHELL", "pg_isready -U ${POSTGRES_USER} -d ${POSTGRES_DB}"]
    assert (check["interval"], check["timeout"], check["retries"]) == ("10s", "5s", 5)


def test_its_logs_cannot_fill_the_disk(database_service: dict[str, Any]) -> None:
    assert {"max-size", "max-file"} <= set(database_service["logging"]["options"])


def test_every_network_connection_needs_the_password(database_service: dict[str, Any]) -> None:
    assert "--auth-host=scram-sha-256" in database_service["environment"]["POSTGRES_INITDB_ARGS"]
    assert server_settings(database_service)["password_encryption"] == "scram-sha-256"


def test_postgresql_16_takes_the_settings_and_logs_who_connects(
    database_service: dict[str, Any], run_directory: Path
) -> None:
    settings = server_settings(database_service)
    with servers.running(16, run_directory / "compose", settings) as postgres:
        with psycopg.connect(postgres.admin_url(), application_name="auditor") as connection:
            rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(settings)])
            assert dict(rows.fetchall()) == settings
        log = postgres.server.log_tail(20)
    assert "connection authorized: user=postgres database=postgres application_name=auditor" in log

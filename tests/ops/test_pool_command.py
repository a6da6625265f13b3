"""`db pool`: what it says of the connections, without opening one and without a secret."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import typer
from typer.testing import CliRunner

from ops import pool
from shared.errors import ConfigurationError
from shared.settings import reset_settings
from tests.servers.pgbouncer import PgBouncer

PASSWORD = "s3cr%t/ é"
SECRET = quote(PASSWORD, safe="")
NEON = f"postgresql://alex:{SECRET}@ep-a-1-pooler.eu-central-1.aws.neon.tech/db?sslmode=require"
SUPABASE = f"postgresql://postgres.ref:{SECRET}@aws-0-eu.pooler.supabase.com:5432/postgres"


def _command() -> typer.Typer:
    app = typer.Typer()
    app.command()(pool.run)
    return app


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `db pool` with these variables, and return what it prints."""

    def command(*arguments: str, **environ: str) -> str:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COLUMNS", "200")
        reset_settings()
        result = CliRunner().invoke(_command(), arguments, catch_exceptions=False)
        assert result.exit_code == 0
        for secret in (PASSWORD, SECRET):
            assert secret not in result.output
        return result.output

    return command


def test_a_function_behind_a_transaction_pooler(command: Any) -> None:
    found = json.loads(command("--json", DATABASE_URL=NEON, APP_ENV="production", VERCEL="1", DATABASE_POOL_MAX="5"))

    assert (found["environment"], found["serverless"]) == ("production", True)
    assert (found["provider"], found["pooler"]) == ("Neon, pooled", "transaction")
    assert found["url"].startswith("postgresql://alex:********@ep-a-1-pooler.")
    assert found["direct_url"].startswith("postgresql://alex:********@ep-a-1.eu-central-1.")
    assert (found["driver"], found["sslmode"]) == ("psycopg", "require")
    assert found["pool"]["max_size"] == {"value": 5, "why": "DATABASE_POOL_MAX"}
    assert found["pool"]["idle_timeout"]["value"] == 20
    assert "serverless" in found["pool"]["idle_timeout"]["why"]
    assert (found["pool"]["surplus_timeout"]["value"], found["pool"]["timeout"]["value"]) == (1, 15)
    assert found["session_limits"]["statement_timeout"] == 27
    assert found["session_limits_sent"] is False
    assert found["role_settings"][0] == "ALTER ROLE \"alex\" SET statement_timeout = '27000ms';"
    assert found["budget"]["formula"] == "instances x 5"
    assert "14 instances" in found["budget"]["meaning"]
    assert found["advice"] == []


def test_a_direct_connection(command: Any) -> None:
    url = f"postgresql://app:{SECRET}@db.example.com/app?pool_timeout=0"
    found = json.loads(command("--json", DATABASE_URL=url, APP_ENV="development", DATABASE_DRIVER="pg8000"))

    assert (found["provider"], found["pooler"]) == ("PostgreSQL", "none")
    assert found["direct_url"] == found["url"]
    assert found["session_limits_sent"] is True
    assert found["role_settings"] == []
    assert found["pool"]["timeout"] == {"value": None, "why": "pool_timeout in the URL"}
    assert (found["driver"], found["sslmode"]) == ("pg8000", "prefer")


def test_a_replica_is_a_second_pool(command: Any) -> None:
    url = f"postgresql://app:{SECRET}@db.example.com/app"
    replica = f"postgresql://app:{SECRET}@replica.example.com,db.example.com/app?connection_limit=3"
    variables = {"DATABASE_URL": url, "APP_ENV": "production", "DATABASE_REPLICA_URL": replica}

    assert json.loads(command("--json", **variables))["replica_url"].startswith(
        "postgresql://app:********@replica.example.com:5432,db.example.com:5432/app"
    )
    assert "a pool beside the other, of 3 more" in " ".join(command(**variables).split())


def test_a_session_pooler_and_an_unknown_direct_url_come_with_advice(command: Any) -> None:
    found = json.loads(command("--json", DATABASE_URL=SUPABASE))
    assert len(found["advice"]) == 1
    assert "port 6543" in found["advice"][0]
    assert found["role_settings"][0].startswith('ALTER ROLE "postgres" SET')

    found = json.loads(command("--json", DATABASE_URL=f"postgresql://app:{SECRET}@10.0.0.1:6432/app"))
    assert found["direct_url"] is None
    assert "DIRECT_URL" in found["advice"][0]


def test_the_table_says_the_same_to_a_person(command: Any) -> None:
    shown = command(DATABASE_URL=NEON, APP_ENV="production", VERCEL="1", DATABASE_POOL_TIMEOUT="0")

    for text in (
        "Neon, pooled",
        "transaction",
        "********@ep-a-1.eu-central-1.aws.neon.tech",
        "encrypted, the certificate not checked",
        "10",
        "20 s",
        "until the deadline",
        "DATABASE_POOL_TIMEOUT",
        "statement_timeout",
        "27 s",
        "instances x 10",
        "only by the role",
        "ALTER ROLE \"alex\" SET lock_timeout = '10000ms';",
    ):
        assert text in shown
    direct = command(DATABASE_URL="postgresql://app@127.0.0.1/app")
    assert "ALTER ROLE" not in direct
    assert "sent in the start-up packet" in direct
    assert "idle_session_timeout" in direct
    assert "idle_session_timeout" not in shown  # behind a pooler that would end the pooler's own connections


def test_a_wrong_url_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://app@db/app")
    with pytest.raises(ConfigurationError):
        CliRunner().invoke(_command(), [], catch_exceptions=False)


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_check_tells_a_pooler_by_what_it_does(
    command: Any, database: str, pgbouncer_of: Callable[..., PgBouncer], driver: str
) -> None:
    # Nothing in its address tells, and it takes start-up options and drops them.
    pooler = pgbouncer_of("distribution", ignore_startup_parameters="options")
    found = json.loads(command("--json", "--check", DATABASE_URL=pooler.url(database), DATABASE_DRIVER=driver))
    assert found["pooler"] == "none"
    assert found["seen"]["pooled"] is True
    assert found["seen"]["limits"]["statement_timeout"] == "0"


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_check_tells_the_server_itself_and_its_limits(command: Any, database: str, driver: str) -> None:
    found = json.loads(command("--json", "--check", DATABASE_URL=database, DATABASE_DRIVER=driver))
    assert found["seen"] == {
        "pooled": False,
        "limits": {
            "statement_timeout": "27s",
            "lock_timeout": "10s",
            "idle_in_transaction_session_timeout": "32s",
            "idle_session_timeout": "32s",
            "tcp_user_timeout": "32000",
        },
    }
    assert "the server itself answers" in command("--check", DATABASE_URL=database)

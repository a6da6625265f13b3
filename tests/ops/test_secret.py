"""`db secret`: strong, safe in a URL, and its verifier is what PostgreSQL makes of it."""

import json
import re
from urllib.parse import quote

import psycopg
import pytest
import typer
from psycopg import sql
from typer.testing import CliRunner

from ops import secret
from shared.db import scram
from tests.servers.postgres import Postgres


def _secret(*arguments: str, code: int = 0) -> str:
    app = typer.Typer()
    app.command()(secret.run)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code
    return result.output.strip()


def test_it_is_long_new_each_time_and_needs_no_encoding() -> None:
    made = {_secret() for _ in range(20)}
    assert len(made) == 20
    for one in made:
        assert len(one) == 40
        assert quote(one, safe="") == one


def test_fewer_characters_than_the_guide_asks_for_are_refused() -> None:
    assert len(_secret("--length", "32")) == 32
    _secret("--length", "31", code=2)


def test_the_verifier_is_the_password_to_the_server(postgres: Postgres) -> None:
    found = json.loads(_secret("--verifier", "--json"))
    assert re.fullmatch(r"SCRAM-SHA-256\$4096:[\w+/=]+\$[\w+/=]+:[\w+/=]+", found["verifier"])
    postgres.admin().execute(sql.SQL("CREATE ROLE verified LOGIN PASSWORD {}").format(sql.Literal(found["verifier"])))
    stored = postgres.admin().execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'verified'").fetchone()
    assert stored == (found["verifier"],)
    try:
        address = f"host=127.0.0.1 port={postgres.port} dbname=postgres user=verified"
        psycopg.connect(f"{address} password={found['secret']}").close()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"{address} password={found['secret']}x")
    finally:
        postgres.admin().execute("DROP ROLE verified")


def test_a_password_that_needs_normalizing_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        scram.verifier("é")

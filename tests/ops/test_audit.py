"""`db audit`: each item of the list is seen where it is wrong, mended by its own SQL, and never needs rights."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from psycopg import sql
from typer.testing import CliRunner

from ops import aws_sdk
from ops.audit import LOOKS, command
from ops.secret import make
from shared.db.url import DatabaseURL
from shared.settings import reset_settings
from tests.servers import aws as cloud
from tests.servers.postgres import Postgres
from tests.servers.tls import TLSPostgres


class Audited:
    """A database of a role with few rights, and the command on it."""

    def __init__(self, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.postgres, self.database = postgres, database
        self.role, self.password = f"audited_{secrets.token_hex(4)}", make()
        self._monkeypatch = monkeypatch
        self.admin(f"CREATE ROLE {self.role} LOGIN PASSWORD '{self.password}'")

    def url(self, **parameters: str) -> str:
        """Return the role's connection string."""
        url = DatabaseURL.parse(f"postgresql://{self.role}:{self.password}@127.0.0.1:{self.postgres.port}/x")
        text = url.with_params(**parameters).render(password=True)
        return text.replace("/x", f"/{self.database}", 1) if "/x" in text else text

    def admin(self, statement: str) -> None:
        """Run a statement in the database as the superuser."""
        with psycopg.connect(self.postgres.admin_url(self.database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def run(self, *arguments: str, url: str | None = None, **variables: str) -> Any:
        """Run the command and return what Typer's runner does."""
        environ = {"DATABASE_URL": url or self.url(), "APP_ENV": "test", "COLUMNS": "250", **variables}
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        reset_settings()
        app = typer.Typer()
        app.command()(command.run)
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert self.password not in result.output
        return result

    def findings(self, *, code: int = 0, url: str | None = None, **variables: str) -> dict[str, Any]:
        """Return the findings by name."""
        result = self.run("--json", url=url, **variables)
        assert result.exit_code == code, result.output
        return {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}

    def mended(self, name: str, before: str, after: str = "ok", environment: str = "test") -> Any:
        """Check a verdict, run the SQL that the finding gives as an administrator, and check the verdict again."""
        found = self.findings(code=5 if before == "fail" else 0, APP_ENV=environment)[name]
        assert found["verdict"] == before, found
        for statement in found["sql"]:
            self.admin(statement)
        assert self.findings(APP_ENV=environment)[name]["verdict"] == after
        return found


@pytest.fixture
def audited(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audited]:
    """Return a database on the shared server."""
    with postgres.database() as name:
        audited = Audited(postgres, name, monkeypatch)
        yield audited
        audited.admin(f"DROP OWNED BY {audited.role}")
    postgres.admin().execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(audited.role)))


def test_it_looks_at_everything_and_says_what_it_may_not_see(audited: Audited) -> None:
    findings = audited.findings()
    assert list(findings) == [name for name, _ in LOOKS]
    unseen = {name for name, finding in findings.items() if finding["verdict"] == "unseen"}
    assert unseen == {"Allow list", "Authentication", "Kept passwords", "Password age"}
    assert "permission denied" in findings["Authentication"]["found"]
    assert findings["Role"]["verdict"] == findings["Ownership"]["verdict"] == "ok"


def test_what_the_role_may_not_see_the_one_of_direct_url_does(audited: Audited) -> None:
    findings = audited.findings(DIRECT_URL=audited.postgres.admin_url(audited.database))
    assert findings["Authentication"]["verdict"] == findings["Kept passwords"]["verdict"] == "ok"
    assert audited.role in findings["Role"]["found"], "of the application all the same"


def test_lines_for_a_person(audited: Audited) -> None:
    audited.admin("GRANT CREATE ON SCHEMA public TO PUBLIC")
    result = audited.run()
    assert result.exit_code == 5
    assert "✗ PUBLIC: schemas" in result.stdout
    assert '    REVOKE CREATE ON SCHEMA "public" FROM PUBLIC;\n' in result.stdout
    assert "1 to mend" in result.stdout


def test_a_schema_in_which_everybody_may_create(audited: Audited) -> None:
    audited.admin("GRANT CREATE ON SCHEMA public TO PUBLIC")
    audited.mended("PUBLIC: schemas", "fail")


def test_a_database_that_everybody_may_connect_to(audited: Audited) -> None:
    audited.mended("PUBLIC: database", "warn")


def test_a_table_that_everybody_may_read(audited: Audited) -> None:
    audited.admin('CREATE TABLE "Open" (); GRANT SELECT ON "Open" TO PUBLIC')
    assert '"Open"' in audited.mended("PUBLIC: tables", "fail")["found"]


def test_a_superuser(audited: Audited) -> None:
    audited.admin(f"ALTER ROLE {audited.role} SUPERUSER")
    assert audited.findings()["Role"]["verdict"] == "warn", "on this machine, in a test"
    audited.mended("Role", "fail", environment="production")


def test_attributes_that_an_application_does_not_need(audited: Audited) -> None:
    audited.admin(f"ALTER ROLE {audited.role} CREATEDB BYPASSRLS")
    assert "CREATEDB, BYPASSRLS" in audited.mended("Role", "warn")["found"]


def test_tables_of_the_application_s_own(audited: Audited) -> None:
    audited.admin(f"CREATE TABLE t (); ALTER TABLE t OWNER TO {audited.role}")
    found = audited.findings()["Ownership"]
    assert found["verdict"] == "warn"
    assert "db roles" in found["advice"][0]


def test_no_limits_of_the_role(audited: Audited) -> None:
    audited.mended("Connection limit", "warn")
    found = audited.mended("Timeouts", "warn")
    assert "statement_timeout" in found["found"]


def test_a_password_that_is_over_soon(audited: Audited) -> None:
    audited.admin(f"ALTER ROLE {audited.role} VALID UNTIL 'tomorrow'")
    audited.mended("Password age", "warn", after="unseen")
    audited.admin(f"ALTER ROLE {audited.role} VALID UNTIL 'infinity'")
    assert "VALID" not in audited.findings()["Password age"]["found"]


@pytest.mark.parametrize(("days", "verdict"), [(10, "ok"), (100, "warn")])
def test_a_secret_of_aws_tells_how_old_the_password_is(
    audited: Audited, days: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_sdk.module("boto3")
    kept = {"SecretString": audited.url(), "CreatedDate": time.time() - days * 86400 - 60}
    with cloud.answering(lambda _: (200, kept)) as account:
        for name, value in account.environment.items():
            monkeypatch.setenv(name, value)
        finding = audited.findings(DATABASE_URL_SECRET_ARN="app")["Password age"]
    assert (finding["verdict"], finding["found"]) == (verdict, f"{days} days old")


def test_a_short_password(audited: Audited) -> None:
    assert audited.findings()["Password strength"]["verdict"] == "ok"
    audited.password = "short-and-weak"
    audited.admin(f"ALTER ROLE {audited.role} PASSWORD '{audited.password}'")
    assert audited.findings()["Password strength"]["verdict"] == "warn"


def test_what_only_the_server_s_configuration_shows(
    tls_postgres: TLSPostgres, monkeypatch: pytest.MonkeyPatch, run_directory: Path
) -> None:
    """On a server of its own: TLS, pg_hba.conf, MD5, the log; as a role that may see all."""
    server = tls_postgres.postgres
    with server.database() as name:
        audited = Audited(server, name, monkeypatch)
        see_all = server.admin_url(name) + "?sslmode=require"
        hba = server.server.data_dir / "pg_hba.conf"
        usual = hba.read_text("utf-8")
        try:
            findings = audited.findings(DIRECT_URL=see_all)
            assert findings["Encryption"]["found"].startswith("TLSv1.")
            assert findings["Encryption"]["verdict"] == "warn", "sslmode=prefer falls back"
            assert "without TLS, on this machine" in findings["TLS enforced"]["found"]
            assert findings["Allow list"]["verdict"] == findings["Authentication"]["verdict"] == "ok"

            hba.write_text("host all all 0.0.0.0/0 trust\nhostssl all all all scram-sha-256\n", "utf-8")
            audited.admin("ALTER SYSTEM SET password_encryption = 'md5'")
            server.reload()
            audited.admin("CREATE ROLE kept_as_md5 LOGIN PASSWORD 'x'")
            findings = audited.findings(code=5, DIRECT_URL=see_all)
            assert "without TLS" in findings["TLS enforced"]["found"]
            assert findings["Authentication"]["verdict"] == "fail"
            assert findings["Authentication"]["found"] == "line 1: host trust"
            assert "lines 1, 2" in findings["Allow list"]["found"]
            assert findings["Password encryption"]["verdict"] == "fail"
            assert findings["Kept passwords"]["found"] == "Kept as MD5: kept_as_md5"
            for statement in findings["Password encryption"]["sql"]:
                audited.admin(statement)
            for statement in findings["Logging"]["sql"]:
                audited.admin(statement)
            server.reload()
            findings = audited.findings(code=5, DIRECT_URL=see_all)
            assert findings["Password encryption"]["verdict"] == findings["Logging"]["verdict"] == "ok"

            hba.write_text("hostssl all all all scram-sha-256\n", "utf-8")
            server.reload()
            monkeypatch.delenv("DIRECT_URL")
            findings = audited.findings(url=audited.url(sslmode="require"))
            assert findings["TLS enforced"]["verdict"] == findings["Encryption"]["verdict"] == "ok"
            assert "is refused" in findings["TLS enforced"]["found"]
        finally:
            hba.write_text(usual, "utf-8")
            for statement in ("ALTER SYSTEM RESET ALL", "DROP ROLE IF EXISTS kept_as_md5"):
                with psycopg.connect(server.admin_url(), autocommit=True, sslmode="prefer") as connection:
                    connection.execute(statement.encode())
            server.reload()
    server.admin().execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(audited.role)))

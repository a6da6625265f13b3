"""Passwords that AWS keeps: what a secret may hold, who asks for it, and rotations that no request notices."""

import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from ops import aws_sdk
from shared import db, deadline, settings
from shared.db import credentials
from shared.db.aws import SecretsManager
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, InvalidPassword
from tests.servers import aws as cloud
from tests.servers.aws import Aws
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.tls import TLSPostgres
from tests.shared.db.conftest import Use
from tests.shared.db.load import Load
from tests.shared.db.watching import name_of, until

ROOT = Path(__file__).resolve().parents[3]
SOURCE = "The secret that DATABASE_URL_SECRET_ARN names"
BASE = DatabaseURL.parse("postgresql://db.example.com:6000/app?sslmode=require&application_name=x")


class Role:
    """A role that may log in, and its passwords."""

    def __init__(self, postgres: Postgres, database: str) -> None:
        self.postgres = postgres
        self.database = name_of(database)
        self.name = f"role_{secrets.token_hex(4)}"
        self.execute("CREATE ROLE {role} LOGIN PASSWORD {password}", "first")

    def execute(self, statement: str, password: str = "") -> None:
        """Run a statement about the role as the superuser."""
        query = sql.SQL(statement).format(role=sql.Identifier(self.name), password=sql.Literal(password))
        self.postgres.admin().execute(query)

    def url(self, password: str) -> str:
        """Return a connection string of this role."""
        return f"postgresql://{self.name}:{password}@127.0.0.1:{self.postgres.port}/{self.database}"

    def change(self, password: str) -> None:
        """Give it another password."""
        self.execute("ALTER ROLE {role} PASSWORD {password}", password)


@pytest.fixture
def role(postgres: Postgres, lasting_database: str) -> Iterator[Role]:
    """Return a role whose password is `first`."""
    role = Role(postgres, lasting_database)
    yield role
    db.close_db(grace=0)
    role.execute("DROP ROLE {role}")


# -- what a secret may hold -------------------------------------------------------------------------


def test_a_connection_string_stands_alone() -> None:
    url = credentials.read(" postgresql://a:b@h/d ", BASE, SOURCE)
    assert url.render(password=True) == "postgresql://a:b@h:5432/d"


def test_our_json_holds_a_connection_string() -> None:
    url = credentials.read(json.dumps({"DATABASE_URL": "postgresql://a:b@h/d"}), None, SOURCE)
    assert (url.host, url.password) == ("h", "b")


def test_what_rds_writes_is_laid_over_the_rest_of_database_url() -> None:
    url = credentials.read(json.dumps({"username": "ann", "password": "p%/@"}), BASE, SOURCE)
    assert (url.user, url.password, url.host, url.port, url.database) == ("ann", "p%/@", "db.example.com", 6000, "app")
    assert url.params["application_name"] == "x"


def test_what_rds_rotation_writes_stands_alone() -> None:
    text = json.dumps(
        {"engine": "postgres", "host": "h", "port": 5433, "dbname": "d", "username": "ann", "password": "p"}
    )
    for base in (None, BASE):
        url = credentials.read(text, base, SOURCE)
        assert (url.user, url.host, url.port, url.database) == ("ann", "h", 5433, "d")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"username": "ann", "password": "sesame"', "is not JSON"),
        ('{"user": "ann", "pass": "sesame"}', "holds neither"),
        ('{"username": "ann", "password": "sesame", "engine": "mysql"}', "another kind"),
        ('{"username": "ann", "password": "sesame", "port": "x", "host": "h"}', "port"),
        ('{"username": "ann", "password": "sesame"}', "no host"),
        ("mysql://ann:sesame@h/d", "does not begin with"),
        ("sesame", "is not a PostgreSQL connection URL"),
    ],
)
def test_a_secret_that_is_wrong_says_so_and_not_itself(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        credentials.read(text, None, SOURCE)
    assert caught.value.__cause__ is None
    assert "sesame" not in f"{caught.value.message} {caught.value.solutions}"
    assert caught.value.message.startswith(SOURCE)


# -- settings ---------------------------------------------------------------------------------------


def test_a_secret_without_another_word_means_production() -> None:
    read = settings.Settings.read({"DATABASE_URL_SECRET_ARN": "app"})
    assert read.environment == "production"


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL_SECRET_ARN": "a", "DATABASE_URL_SSM_PARAMETER": "b"},
        {"DATABASE_URL_SECRET_ARN": "a", "DATABASE_IAM_AUTH": "true"},
        {"DATABASE_IAM_AUTH": "maybe"},
    ],
)
def test_only_one_may_keep_the_password(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        assert settings.Settings.read(environ).database_url


def test_tls_is_settled_as_for_any_other_url(in_aws: Aws, use: Use) -> None:
    arn = in_aws.create_secret("weak", "postgresql://a:sesame@db.example.com/d?sslmode=disable")
    use("", DATABASE_URL_SECRET_ARN=arn, APP_ENV="production")
    with pytest.raises(ConfigurationError, match="sslmode=disable") as caught:
        assert settings.get_settings().database_url
    assert caught.value.message.startswith(SOURCE)


def test_a_direct_url_without_a_password_logs_in_with_the_secret(in_aws: Aws, use: Use) -> None:
    arn = in_aws.create_secret("direct", '{"username": "ann", "password": "p"}')
    pooler, server = "postgresql://pooler.example.com:6432/app", "postgresql://db.example.com/app"
    use(pooler, DATABASE_URL_SECRET_ARN=arn, DIRECT_URL=server)
    direct = settings.get_settings().direct_database_url
    assert direct is not None
    assert (direct.host, direct.user, direct.password) == ("db.example.com", "ann", "p")

    use(pooler, DIRECT_URL="postgresql://owner:own@db.example.com/app")
    direct = settings.get_settings().direct_database_url
    assert direct is not None
    assert (direct.user, direct.password) == ("owner", "own")


def test_a_parameter_is_deciphered(in_aws: Aws, use: Use, role: Role) -> None:
    with in_aws.client("ssm") as client:
        client.put_parameter(Name="/app/url", Value=role.url("first"), Type="SecureString")
    use("", DATABASE_URL_SSM_PARAMETER="/app/url")
    assert db.fetch_value("SELECT current_user::text") == role.name

    role.change("second")
    with in_aws.client("ssm") as client:
        client.put_parameter(Name="/app/url", Value=role.url("second"), Type="SecureString", Overwrite=True)
    db.open_connection().close()


# -- rotation ---------------------------------------------------------------------------------------


def test_rotating_one_user_s_password_drops_no_request(
    in_aws: Aws, use: Use, role: Role, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As AWS's own rotation does it: the new password waits as AWSPENDING while the server's changes."""
    arn = in_aws.create_secret(role.name, role.url("first"))
    use("", DATABASE_URL_SECRET_ARN=arn)
    caplog.set_level(logging.DEBUG)
    with Load() as load:
        version = in_aws.put(arn, role.url("second-pass"), "AWSPENDING")
        load.more("fresh")
        role.change("second-pass")
        load.more("fresh")  # AWSCURRENT is still the old one
        with in_aws.client("secretsmanager") as client:
            old = next(one for one, stages in in_aws.stages(arn).items() if "AWSCURRENT" in stages)
            client.update_secret_version_stage(
                SecretId=arn, VersionStage="AWSCURRENT", MoveToVersionId=version, RemoveFromVersionId=old
            )
        load.more("fresh")
    assert load.failures == []
    assert "second-pass" not in caplog.text


def test_a_password_that_changes_before_the_secret_drops_no_request(
    in_aws: Aws, use: Use, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person may do it: for a moment nobody can know the new password."""
    arn = in_aws.create_secret(role.name, json.dumps({"username": role.name, "password": "first"}))
    use(role.url("x").replace(f"{role.name}:x@", ""), DATABASE_URL_SECRET_ARN=arn)
    in_vain = threading.Event()

    def pending(store: SecretsManager) -> str | None:
        in_vain.set()
        return ask(store)

    ask = SecretsManager.pending
    monkeypatch.setattr(SecretsManager, "pending", pending)
    with Load() as load:
        role.change("second")
        assert in_vain.wait(10)
        load.more("pooled", 50)
        in_aws.put(arn, json.dumps({"username": role.name, "password": "second"}), "AWSCURRENT")
        load.more("fresh")
    assert load.failures == []


def test_alternating_two_users_drops_no_request(
    in_aws: Aws, use: Use, role: Role, postgres: Postgres, lasting_database: str
) -> None:
    other = Role(postgres, lasting_database)
    arn = in_aws.create_secret(role.name, role.url("first"))
    use("", DATABASE_URL_SECRET_ARN=arn)
    with Load() as load:
        in_aws.put(arn, other.url("first"), "AWSCURRENT")
        load.more("fresh")  # the first user's password stays good
        role.execute("ALTER ROLE {role} NOLOGIN")
        load.more("fresh")
    db.close_db(grace=0)
    other.execute("DROP ROLE {role}")
    assert load.failures == []
    assert load.users == {role.name, other.name}


def test_a_transaction_that_may_run_again_outlasts_the_gap_at_a_cold_start(in_aws: Aws, use: Use, role: Role) -> None:
    arn = in_aws.create_secret(role.name, role.url("first"))
    use("", DATABASE_URL_SECRET_ARN=arn)
    role.change("second")
    refused = threading.Event()

    def put_the_new_one() -> None:
        refused.wait(10)
        in_aws.put(arn, role.url("second"), "AWSCURRENT")

    thread = threading.Thread(target=put_the_new_one)
    thread.start()
    connect = db.get_pool()._connect

    def watched(idle_timeout: float) -> Any:
        try:
            return connect(idle_timeout)
        except InvalidPassword:
            refused.set()
            raise

    db.get_pool()._connect = watched
    with deadline.within(15):
        assert db.run_transaction(lambda tx: tx.fetch_value("SELECT 1")) == 1
    thread.join()
    assert refused.is_set()


def test_a_password_that_is_wrong_from_the_start_fails_at_once(in_aws: Aws, use: Use, role: Role) -> None:
    arn = in_aws.create_secret(role.name, role.url("sesame"))
    use("", DATABASE_URL_SECRET_ARN=arn)
    with pytest.raises(InvalidPassword) as caught:
        db.open_connection()
    assert "sesame" not in str(caught.value)


# -- asking AWS -------------------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have AWS answer as `answers(function)` says, to the secret `app`."""
    aws_sdk.module("boto3")
    opened = []

    def answers(answer: Callable[[str], tuple[int, dict[str, object]]]) -> None:
        server = cloud.answering(answer)
        opened.append(server)
        for name, value in server.__enter__().environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DATABASE_URL_SECRET_ARN", "app")
        monkeypatch.setenv("APP_ENV", "test")
        settings.reset_settings()

    yield answers
    for server in opened:
        server.__exit__(None, None, None)


def test_what_to_mask_is_known_without_asking(answers: Any) -> None:
    said = ["first", "second"]
    answers(lambda _: (200, {"SecretString": f"postgresql://a:{said.pop(0)}@127.0.0.1/d"}))
    current = settings.get_settings()
    assert current.known_passwords == frozenset()
    assert current.database_url.password == "first"
    assert current.refreshed_database_url().password == "second"
    assert current.known_passwords == {"first", "second"}


@pytest.mark.parametrize(
    ("code", "says", "advice"),
    [
        ("AccessDeniedException", "does not let this role", "secretsmanager:GetSecretValue"),
        ("ResourceNotFoundException", "AWS has no app", "region"),
        ("DecryptionFailure", "decipher", "kms:Decrypt"),
        ("ExpiredTokenException", "no valid AWS credentials", "AWS_PROFILE"),
        ("InvalidRequestException", "InvalidRequestException", "again"),
    ],
)
def test_what_aws_refuses_is_told_with_what_to_do(answers: Any, code: str, says: str, advice: str) -> None:
    answers(lambda _: (400, {"__type": code, "message": "sesame"}))
    with pytest.raises(ConfigurationError, match=says) as caught:
        assert settings.get_settings().database_url
    assert advice in " ".join(caught.value.solutions)
    assert "sesame" not in caught.value.message


def test_concurrent_callers_share_one_call_and_later_ones_its_answer(answers: Any) -> None:
    asked: list[str] = []
    may_answer = threading.Event()
    found: list[DatabaseURL] = []

    def answer(operation: str) -> tuple[int, dict[str, object]]:
        asked.append(operation)
        may_answer.wait(10)
        return 200, {"SecretString": "postgresql://a:b@127.0.0.1/d"}

    answers(answer)
    current = settings.get_settings()
    threads = [threading.Thread(target=lambda: found.append(current.database_url)) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: asked)
    may_answer.set()
    for thread in threads:
        thread.join()
    assert current.database_url is found[0]
    assert len(found) == 5
    assert asked == ["GetSecretValue"]


def test_nobody_waits_for_aws_longer_than_the_deadline(answers: Any) -> None:
    may_answer = threading.Event()

    def answer(operation: str) -> tuple[int, dict[str, object]]:
        may_answer.wait(10)
        return 200, {"SecretString": "postgresql://a:b@127.0.0.1/d"}

    answers(answer)
    with deadline.within(0.2), pytest.raises(ConfigurationError, match="in time"):
        assert settings.get_settings().database_url
    may_answer.set()
    assert settings.get_settings().database_url.user == "a"


def test_a_refusal_is_the_server_s_where_aws_cannot_be_asked_again(answers: Any, role: Role) -> None:
    said = [(200, {"SecretString": role.url("wrong")}), (400, {"__type": "AccessDeniedException"})]
    answers(lambda _: said.pop(0) if len(said) > 1 else said[0])
    with pytest.raises(InvalidPassword):
        db.open_connection()


def test_a_log_record_of_the_thread_that_asks_aws_does_not_wait_for_its_answer() -> None:
    class Store:
        def current(self) -> str:
            with pytest.raises(ConfigurationError, match="in time"):
                stored.url()
            return "postgresql://a:b@h/d"

        def pending(self) -> str | None:
            return None

    stored = credentials.Stored(Store(), DatabaseURL.parse)
    assert stored.url().user == "a"


def test_a_failure_is_repeated_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Store:
        def current(self) -> str:
            asked.append(1)
            raise ConfigurationError("no")

        def pending(self) -> str | None:
            return None

    stored = credentials.Stored(Store(), DatabaseURL.parse)
    for _ in range(3):
        with pytest.raises(ConfigurationError):
            stored.url()
    assert len(asked) == 1
    monkeypatch.setattr(credentials, "_AGAIN", 0)
    with pytest.raises(ConfigurationError):
        stored.url()
    assert len(asked) == 2


def test_boto3_is_imported_when_it_is_needed_and_its_absence_told() -> None:
    program = """
import sys
sys.modules["boto3"] = None
from shared import db, settings
from shared.errors import ConfigurationError
settings.get_settings()
assert not any(name.startswith("botocore") for name in sys.modules)
try:
    db.fetch_value("SELECT 1")
except ConfigurationError as error:
    print(error.message, *error.solutions)
"""
    environ = {"DATABASE_URL_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:1:secret:x", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "boto3 is not installed" in done.stdout
    assert "pip install boto3" in done.stdout


# -- IAM tokens -------------------------------------------------------------------------------------


def test_a_token_stands_in_the_place_of_the_password(in_aws: Aws, use: Use) -> None:
    host = "app.abc.eu-west-3.rds.amazonaws.com"
    use(f"postgresql://ann@{host}/app", DATABASE_IAM_AUTH="true")
    url = settings.get_settings().database_url
    assert url.password is not None
    assert url.password.startswith(f"{host}:5432/?Action=connect&DBUser=ann&")
    assert "X-Amz-Expires=900" in url.password
    assert "eu-west-3" in url.password, "signed for the region of the host, not of the function"
    assert url.sslmode == "require"
    assert settings.get_settings().database_url.password == url.password

    direct = settings.get_settings().direct_database_url
    assert direct is not None
    assert direct.password == url.password


def test_a_token_is_renewed_before_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    signed: list[str] = []
    tokens = credentials.Tokens(lambda *key: signed.append(str(key)) or f"token {len(signed)}")  # type: ignore[func-returns-value]
    now = 1000.0
    monkeypatch.setattr("shared.db.credentials.time.time", lambda: now)
    assert [tokens.url(BASE).password for _ in range(2)] == ["token 1", "token 1"]
    now += credentials.TOKEN_LIFE
    assert tokens.url(BASE).password == "token 2"
    now -= 3600  # the clock was set
    assert tokens.url(BASE).password == "token 3"
    tokens.forget()
    assert tokens.url(BASE).password == "token 4"


def test_every_connection_gets_a_token_that_is_good(use: Use, tls_postgres: TLSPostgres, driver: str) -> None:
    server = tls_postgres.postgres
    with server.database() as name:
        url = DatabaseURL.parse(server.url(name))
        use(url.render(password=True), DATABASE_IAM_AUTH="true", DATABASE_POOL_MAX="1")
        made: list[str] = []

        def sign(host: str, port: int, user: str) -> str:
            made.append(f"token-{len(made)}")
            server.admin().execute(sql.SQL("ALTER ROLE app PASSWORD {}").format(sql.Literal(made[-1])))
            return made[-1]

        settings.get_settings()._tokens._sign = sign
        assert db.fetch_value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        settings.get_settings()._tokens.forget()
        db.open_connection().close()  # with a new one, without a refusal
        assert len(made) == 2
        server.admin().execute("ALTER ROLE app PASSWORD 'over'")
        db.open_connection().close()  # refused once, signed anew
        assert len(made) == 3
        db.close_db(grace=0)
        server.admin().execute(sql.SQL("ALTER ROLE app PASSWORD {}").format(sql.Literal(APP_PASSWORD)))

"""`db rotate`: the new password is in force before the old one is gone, whatever ends the command."""

import json
import os
import re
import secrets
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ops import aws_sdk, rotate
from ops.vaults import File, Secret, with_login
from shared import db, settings
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, InvalidPassword, LockTimeout, Refused
from tests.servers import aws as cloud
from tests.servers.aws import Aws
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.shared.db.load import Load


class App:
    """A role with the password `first`, and the ways to rotate it."""

    def __init__(self, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.postgres, self.database, self.folder = postgres, database, folder
        self.role = f"app_{secrets.token_hex(4)}"
        self.said: list[str] = []
        self._monkeypatch = monkeypatch
        self.execute("CREATE ROLE {} LOGIN PASSWORD 'first'")
        self.url = self.url_with("first")
        monkeypatch.setattr(rotate, "ROOT", folder)

    def execute(self, statement: str, role: str | None = None) -> None:
        """Run a statement about a role as the superuser."""
        name = sql.Identifier(role or self.role)
        self.postgres.admin().execute(sql.SQL(statement).format(name))

    def url_with(self, password: str) -> str:
        """Return a connection string of the role."""
        return f"postgresql://{self.role}:{password}@127.0.0.1:{self.postgres.port}/{self.database}?pgbouncer=false"

    def use(self, url: str = "", **variables: str) -> None:
        """Point the settings at a URL."""
        for name, value in {"DATABASE_URL": url, "APP_ENV": "test", **variables}.items():
            self._monkeypatch.setenv(name, value)
        settings.reset_settings()

    def rotate(self, *, alternate: bool = False, force: bool = False) -> str:
        """Run the command's body, with settings as a new process reads them; return what it said."""
        settings.reset_settings()
        current = settings.get_settings()
        self.said.clear()
        vault = rotate.vault_of(current)
        rotate.rotate(current, vault, alternate=alternate, force=force, report=self.said.append)
        return "\n".join(self.said)

    def files(self) -> list[Path]:
        """Return the files that hold what is pending."""
        return list((self.folder / ".data").glob("rotation-*"))

    def pending(self) -> str:
        """Return what is pending."""
        (file,) = self.files()
        assert file.stat().st_mode & 0o777 == 0o600
        return file.read_text("utf-8").strip()


@pytest.fixture
def app(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[App]:
    """Return a role of the shared server, in the database `postgres`."""
    app = App(postgres, "postgres", monkeypatch, tmp_path)
    yield app
    db.close_db(grace=0)
    app.execute("DROP ROLE IF EXISTS {}", app.role + "_clone")
    app.execute("DROP ROLE {}")


def lets_in(url: str) -> bool:
    """Tell whether the server lets this one in."""
    try:
        psycopg.connect(**DatabaseURL.parse(url).connect_kwargs()).close()  # type: ignore[arg-type]
    except psycopg.OperationalError:
        return False
    return True


# -- texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("postgresql://a:b@h/d", "postgresql://n:p%2F@h/d"),
        ("postgres://h:1,g:2/d?schema=x&sslmode=require", "postgres://n:p%2F@h:1,g:2/d?schema=x&sslmode=require"),
        ("postgresql:///d?host=/run&user=a&password=b", "postgresql://n:p%2F@/d?host=/run"),
        ('"postgresql://a:b%40c@h/d"', "postgresql://n:p%2F@h/d"),
        ('{"username": "a", "password": "b", "x": 1}', '{"username": "n", "password": "p/", "x": 1}'),
        ('{"DATABASE_URL": "postgresql://a:b@h/d"}', '{"DATABASE_URL": "postgresql://n:p%2F@h/d"}'),
    ],
)
def test_only_user_and_password_of_a_text_change(before: str, after: str) -> None:
    assert with_login(before, "n", "p/") == after


def test_a_database_that_is_named_by_the_user_alone_is_not_lost() -> None:
    with pytest.raises(ConfigurationError, match="does not name its database"):
        with_login("postgresql://a:b@h", "n", "p")


# -- a secret of AWS --------------------------------------------------------------------------------


def test_a_secret_of_aws_is_rotated_and_the_password_is_in_no_log(in_aws: Aws, app: App) -> None:
    arn = in_aws.create_secret(app.role, app.url)
    app.use("", DATABASE_URL_SECRET_ARN=arn)
    app.execute("ALTER ROLE {} SET log_statement = 'all'", "app")
    app.execute("ALTER ROLE {} SET log_statement = 'all'")
    said = app.rotate()

    found = in_aws.read(arn)
    password = DatabaseURL.parse(found).password or ""
    assert found == app.url_with(password)
    assert len(password) >= 32
    assert lets_in(found)
    assert not lets_in(app.url)
    assert [stages for stages in in_aws.stages(arn).values() if "AWSPENDING" in stages] == []
    assert password not in said
    assert password not in app.postgres.server.log_file.read_text("utf-8")
    app.execute("ALTER ROLE {} RESET log_statement", "app")


def test_what_rds_writes_keeps_its_form(in_aws: Aws, app: App) -> None:
    kept = {"engine": "postgres", "host": "127.0.0.1", "port": app.postgres.port, "dbname": app.database}
    arn = in_aws.create_secret(app.role, json.dumps({**kept, "username": app.role, "password": "first"}))
    app.use("", DATABASE_URL_SECRET_ARN=arn)
    app.rotate()
    found = json.loads(in_aws.read(arn))
    assert {name: found[name] for name in kept} == kept
    assert lets_in(app.url_with(found["password"]))


def test_a_secret_that_aws_rotates_is_left_alone(app: App) -> None:
    aws_sdk.module("boto3")
    with cloud.answering(lambda _: (200, {"RotationEnabled": True})) as account, pytest.MonkeyPatch.context() as patch:
        for name, value in account.environment.items():
            patch.setenv(name, value)
        with pytest.raises(Refused, match="AWS rotates"):
            Secret("app").current()


@pytest.mark.parametrize("alternate", [False, True])
def test_rotating_under_load_drops_no_request(in_aws: Aws, app: App, alternate: bool) -> None:
    arn = in_aws.create_secret(app.role, app.url)
    app.use("", DATABASE_URL_SECRET_ARN=arn, DIRECT_URL=app.postgres.admin_url(app.database))
    with Load() as load:
        for _ in range(2):
            app.rotate(alternate=alternate)
            load.more("fresh")
            load.more("pooled")
    assert load.failures == []
    assert lets_in(in_aws.read(arn))
    assert lets_in(app.url) is False


# -- a file beside the environment ------------------------------------------------------------------


def test_a_variable_is_rotated_in_two_runs_with_the_new_url_in_a_file(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.use(app.url)
    said = app.rotate()
    fresh = app.pending()
    assert lets_in(fresh)
    assert not lets_in(app.url)
    assert str(app.files()[0]) in said
    assert (DatabaseURL.parse(fresh).password or "") not in said

    assert "goes on" in app.rotate()  # DATABASE_URL is the old one still
    assert app.pending() == fresh
    assert lets_in(fresh)

    app.use(fresh)
    assert "complete" in app.rotate()
    assert app.files() == []
    assert lets_in(fresh)


def test_a_parameter_is_rotated_with_the_command_that_is_printed(in_aws: Aws, app: App) -> None:
    with in_aws.client("ssm") as client:
        client.put_parameter(Name="/rotate", Value=app.url, Type="SecureString")
        app.use("", DATABASE_URL_SSM_PARAMETER="/rotate")
        said = app.rotate()
        (path,) = re.findall(r"put-parameter --overwrite --type SecureString --name /rotate --value file://(\S+)", said)
        written = Path(path).read_text("utf-8")
        client.put_parameter(Name="/rotate", Value=written, Type="SecureString", Overwrite=True)
    assert "complete" in app.rotate()
    assert lets_in(written)


def test_a_direct_url_with_the_old_password_is_told(app: App) -> None:
    app.use(app.url, DIRECT_URL=app.url)
    assert "DIRECT_URL holds the old password" in app.rotate()


def test_in_production_a_gap_is_refused_and_alternating_leaves_none(app: App) -> None:
    app.execute("ALTER ROLE {} SET statement_timeout = '7s'")
    app.use(app.url, APP_ENV="production", DIRECT_URL=app.postgres.admin_url())
    with pytest.raises(Refused) as caught:
        app.rotate()
    assert "--alternate" in " ".join(caught.value.solutions)
    assert app.files() == []

    app.rotate(alternate=True)
    fresh = app.pending()
    assert DatabaseURL.parse(fresh).user == app.role + "_clone"
    assert lets_in(fresh)
    assert lets_in(app.url)
    app.use(app.url, APP_ENV="production", DIRECT_URL="")
    assert str(app.files()[0]) in app.rotate(), "what is left to do, told again, and no administrator needed"
    app.use(app.url, APP_ENV="production", DIRECT_URL=app.postgres.admin_url())
    with psycopg.connect(**DatabaseURL.parse(fresh).connect_kwargs()) as connection:  # type: ignore[arg-type]
        assert connection.execute("SHOW statement_timeout").fetchone() == ("7s",)
        assert connection.execute("SELECT pg_has_role(%s, 'USAGE')", [app.role]).fetchone() == (True,)

    app.use(fresh)
    app.rotate()
    app.rotate(alternate=True)  # and back
    back = app.pending()
    assert DatabaseURL.parse(back).user == app.role
    assert lets_in(back)
    assert lets_in(fresh)
    assert not lets_in(app.url)


def test_a_double_takes_an_administrator(app: App) -> None:
    app.use(app.url)
    with pytest.raises(Refused, match="may not make"):
        app.rotate(alternate=True)
    assert lets_in(app.url)
    app.use(app.url, DIRECT_URL=app.postgres.admin_url())
    app.rotate(alternate=True)  # goes on with what was pending


def test_tokens_are_not_rotated(app: App) -> None:
    app.use(app.url, DATABASE_IAM_AUTH="true")
    with pytest.raises(Refused, match="no password"):
        app.rotate()


# -- what goes wrong --------------------------------------------------------------------------------


def test_the_old_password_is_put_back_where_a_pooler_does_not_take_the_new_one(
    app: App, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate, "_TAKES", 0.5)
    server = app.postgres.url(app.database)
    app.use(pgbouncer.url(server) + "?pgbouncer=true", DIRECT_URL=server)  # it has a list of passwords
    with pytest.raises(InvalidPassword, match="put back") as caught:
        app.rotate()
    assert "auth_query" in " ".join(caught.value.solutions)
    assert app.files() == []
    assert lets_in(server)


def test_two_rotations_at_once_are_one(app: App) -> None:
    app.use(app.url)
    with psycopg.connect(app.url.partition("?")[0]) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [rotate._KEY])
        with pytest.raises(LockTimeout):
            app.rotate()
        assert app.files() == [], "what the other one keeps was left alone"
        assert lets_in(app.url)
    app.rotate()


def test_where_the_server_takes_neither_an_administrator_is_told_what_to_run(app: App) -> None:
    app.use(app.url)
    app.rotate()
    app.execute("ALTER ROLE {} PASSWORD 'somebody else was here'")
    with pytest.raises(InvalidPassword, match="neither") as caught:
        app.rotate()
    statement = caught.value.solutions[-1]
    assert statement.startswith(f'ALTER ROLE "{app.role}" PASSWORD \'SCRAM-SHA-256$')
    app.postgres.admin().execute(statement.encode())
    app.rotate()
    assert lets_in(app.pending())


# -- kill -9 ----------------------------------------------------------------------------------------


def killed(rotation: Callable[[], object]) -> None:
    """Run it in a child, which kills itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other fixtures; the child needs none
        child = os.fork()
    if child == 0:
        try:
            rotation()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_STEPS = {
    "kept, not set": (rotate, "_set_password"),
    "set, not tried": (rotate, "_trouble"),
    "tried, not promoted": ("vault", "promote"),
    "promoted, still pending": ("vault", "drop"),
}


@pytest.mark.parametrize(
    ("kind", "step"),
    [pytest.param("secret", step, marks=pytest.mark.deploy) for step in _STEPS]
    + [pytest.param("file", step) for step in list(_STEPS)[:3]],  # a file forgets nothing
)
def test_after_kill_9_the_next_run_goes_on(kind: str, step: str, app: App, request: pytest.FixtureRequest) -> None:
    place, name = _STEPS[step]
    if kind == "secret":
        account = request.getfixturevalue("in_aws")
        arn = account.create_secret(app.role, app.url)
        app.use("", DATABASE_URL_SECRET_ARN=arn)
    else:
        app.use(app.url)

    def rotation() -> None:
        target = (Secret if kind == "secret" else File) if place == "vault" else place
        setattr(target, name, _die)
        app.rotate()

    killed(rotation)
    # Whatever is in force or pending lets clients in meanwhile.
    if kind == "secret":
        pending = account.read(arn, "AWSPENDING")
        assert lets_in(account.read(arn)) or lets_in(pending)
    else:
        pending = app.pending()
        assert lets_in(app.url) or lets_in(pending)

    said = app.rotate()
    assert "earlier rotation" in said
    assert lets_in(pending)
    if kind == "secret":
        assert account.read(arn) == pending
        assert [stages for stages in account.stages(arn).values() if "AWSPENDING" in stages] == []
    else:
        app.use(pending)
        assert "complete" in app.rotate()

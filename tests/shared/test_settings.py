"""The environment: what each variable means, which rules follow from it, and that no secret is repeated."""

import itertools
from collections.abc import Mapping

import pytest

from shared.errors import ConfigurationError
from shared.settings import VARIABLES, Settings, get_settings, reset_settings

REMOTE = "postgresql://app:s3cret-Canary-42@db.example.com:5432/app"
LOCAL = "postgresql://app:s3cret-Canary-42@127.0.0.1:5432/app"
CANARY = "s3cret-Canary-42"


def read(**environ: str) -> Settings:
    return Settings.read(environ)


def refusal(**environ: str) -> ConfigurationError:
    """Return the error that reading these variables, the database's among them, must give."""
    with pytest.raises(ConfigurationError) as caught:
        _ = Settings.read(environ).database_url
    return caught.value


def told(error: ConfigurationError) -> str:
    """Return everything that an error could show to anybody."""
    return " ".join([str(error), repr(error), error.message, *error.solutions])


# -- the environment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "development"),
        ({"DATABASE_URL": LOCAL}, "development"),
        ({"DATABASE_URL": "postgresql://app@localhost/app"}, "development"),
        ({"DATABASE_URL": "postgresql:///app?host=/var/run/postgresql"}, "development"),
        ({"DATABASE_URL": REMOTE}, "production"),
        ({"DATABASE_URL": "postgresql://app@localhost,db.example.com/app"}, "production"),
        ({"DATABASE_URL": "postgresql:///app?host=/cloudsql/project:region:instance"}, "production"),
        ({"DATABASE_URL": "not a URL"}, "production"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "health"}, "production"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "health", "DATABASE_URL": LOCAL}, "production"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "health", "NODE_ENV": "test"}, "test"),
        ({"NODE_ENV": "production"}, "production"),
        ({"NODE_ENV": "development", "DATABASE_URL": REMOTE}, "development"),
        ({"NODE_ENV": "production", "VERCEL_ENV": "preview"}, "preview"),
        ({"NODE_ENV": "production", "VERCEL_ENV": "preview", "APP_ENV": "test"}, "test"),
        ({"APP_ENV": "", "VERCEL_ENV": " ", "NODE_ENV": "test"}, "test"),
        ({"APP_ENV": " Production "}, "production"),
    ],
)
def test_the_environment_is_resolved_in_order(environ: dict[str, str], expected: str) -> None:
    assert Settings.read(environ).environment == expected


@pytest.mark.parametrize(
    ("environment", "production_like"),
    [("development", False), ("test", False), ("preview", True), ("production", True)],
)
def test_a_preview_follows_the_rules_of_production(environment: str, production_like: bool) -> None:
    settings = read(APP_ENV=environment, DATABASE_URL=REMOTE)

    assert settings.is_production_like is production_like
    assert settings.database_url.sslmode == ("require" if production_like else "prefer")
    assert settings.admin_initial_password == (None if production_like else "ChangeMe123!")
    if production_like:
        assert "DATABASE_URL is not set" in refusal(APP_ENV=environment).message
        assert "sslmode=prefer" in refusal(APP_ENV=environment, DATABASE_URL=f"{REMOTE}?sslmode=prefer").message


# -- defaults ---------------------------------------------------------------------------------------


def test_the_guides_defaults() -> None:
    settings = read()

    assert settings.database_url.connect_kwargs() == {
        "host": "127.0.0.1",
        "port": "5438",
        "user": "chatmaps",
        "password": "chatmaps_dev_password",
        "dbname": "chatmaps",
        "sslmode": "prefer",
    }
    assert settings.migration_require_force is False
    assert settings.migration_dryrun is False
    assert settings.migration_force is False
    assert settings.admin_initial_password == "ChangeMe123!"
    assert settings.admin_email == "admin@example.com"
    assert settings.database_driver == "psycopg"
    assert settings.cors_allow_origins == ()
    assert settings.request_timeout == 25
    assert settings.commit is None
    assert settings.is_serverless is False


def test_every_default_is_documented() -> None:
    documented = {variable.name: variable.default for variable in VARIABLES}
    guides = """
        DATABASE_URL DATABASE_SSL DATABASE_DISABLE_SSL MIGRATION_REQUIRE_FORCE MIGRATION_DRYRUN MIGRATION_FORCE
        ADMIN_INITIAL_PASSWORD POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB POSTGRES_PORT APP_ENV VERCEL_ENV NODE_ENV
    """

    assert set(guides.split()) <= documented.keys()
    local = read().local_database
    assert documented["POSTGRES_USER"] == local.user
    assert documented["POSTGRES_PASSWORD"] == local.password
    assert documented["POSTGRES_DB"] == local.database
    assert documented["POSTGRES_PORT"].startswith(str(local.port))
    assert documented["REQUEST_TIMEOUT"] == f"{read().request_timeout:g}"
    assert documented["DATABASE_DRIVER"] == read().database_driver
    assert documented["ADMIN_EMAIL"] == read().admin_email
    assert documented["ADMIN_INITIAL_PASSWORD"].startswith(str(read().admin_initial_password))
    for name in ("DATABASE_DISABLE_SSL", "MIGRATION_REQUIRE_FORCE", "MIGRATION_DRYRUN", "MIGRATION_FORCE"):
        assert documented[name] == "false"
    assert all(variable.meaning for variable in VARIABLES)
    secret = "DATABASE_URL POSTGRES_URL DIRECT_URL DATABASE_URL_UNPOOLED POSTGRES_URL_NON_POOLING"
    secret += (
        " DATABASE_REPLICA_URL ADMIN_INITIAL_PASSWORD POSTGRES_PASSWORD OPERATOR_TOKEN CRON_SECRET ALERT_WEBHOOK_URL"
    )
    assert {variable.name for variable in VARIABLES if variable.secret} == set(secret.split())


def test_each_variable_has_its_meaning() -> None:
    settings = read(
        APP_ENV="test",
        DATABASE_DRIVER="pg8000",
        DATABASE_POOL_MAX="7",
        DATABASE_POOL_IDLE_TIMEOUT="12.5",
        DATABASE_POOL_TIMEOUT="0",
        MIGRATION_REQUIRE_FORCE="true",
        MIGRATION_DRYRUN="1",
        MIGRATION_FORCE="yes",
        ADMIN_EMAIL="root@example.com",
        ADMIN_INITIAL_PASSWORD="correct horse",
        CORS_ALLOW_ORIGINS="https://a.example.com, http://localhost:5173",
        REQUEST_TIMEOUT="7.5",
        POSTGRES_USER="me",
        POSTGRES_PASSWORD="p%@/:?#&+ é",
        POSTGRES_DB="mine",
        POSTGRES_PORT="5999",
    )

    assert settings.database_driver == "pg8000"
    assert settings.database_pool_max == 7
    assert settings.database_pool_idle_timeout == 12.5
    assert settings.database_pool_timeout == 0
    assert settings.migration_require_force is True
    assert settings.migration_dryrun is True
    assert settings.migration_force is True
    assert settings.admin_email == "root@example.com"
    assert settings.admin_initial_password == "correct horse"
    assert settings.cors_allow_origins == ("https://a.example.com", "http://localhost:5173")
    assert settings.request_timeout == 7.5
    url = settings.database_url
    assert (url.user, url.password, url.database, url.port) == ("me", "p%@/:?#&+ é", "mine", 5999)


def test_the_url_beats_the_local_database() -> None:
    settings = read(DATABASE_URL=LOCAL, POSTGRES_USER="other", POSTGRES_DB="other", POSTGRES_PORT="1")

    assert (settings.database_url.user, settings.database_url.port) == ("app", 5432)


def test_the_url_of_vercels_integrations_is_read_where_there_is_no_other() -> None:
    settings = read(POSTGRES_URL=REMOTE)

    assert settings.environment == "production"
    assert settings.database_url.host == "db.example.com"
    assert read(POSTGRES_URL=REMOTE, DATABASE_URL=LOCAL).database_url.host == "127.0.0.1"
    assert read(POSTGRES_URL=REMOTE, DATABASE_URL=LOCAL).environment == "development"
    assert refusal(POSTGRES_URL=f"{REMOTE}?sslmode=disable").message.startswith("POSTGRES_URL has sslmode=disable")
    assert refusal(POSTGRES_URL="nonsense").message.startswith("POSTGRES_URL is not")


def test_the_direct_url_is_found_in_order() -> None:
    environ = {"DATABASE_URL": "postgresql://u:p@pooler.example.com/db"}
    assert Settings.read(environ).direct_database_url == Settings.read(environ).database_url

    for name in ("POSTGRES_URL_NON_POOLING", "DATABASE_URL_UNPOOLED", "DIRECT_URL"):
        environ[name] = f"postgresql://u:p@{name.lower().replace('_', '-')}.example.com/db"
        direct = Settings.read(environ).direct_database_url
        assert direct is not None
        assert direct.host == f"{name.lower().replace('_', '-')}.example.com"
        assert direct.sslmode == "require"


def test_a_wrong_direct_url_is_named() -> None:
    with pytest.raises(ConfigurationError, match="DIRECT_URL has sslmode=disable"):
        _ = read(DATABASE_URL=REMOTE, DIRECT_URL=f"{REMOTE}?sslmode=disable").direct_database_url


def test_a_remote_direct_url_does_not_lead_local_work_away() -> None:
    direct = read(DATABASE_URL=LOCAL, DIRECT_URL=REMOTE).direct_database_url

    assert direct is not None
    assert direct.is_local


def test_the_replica_follows_the_rules_of_the_primary() -> None:
    replica = read(DATABASE_URL=REMOTE, DATABASE_REPLICA_URL=REMOTE.replace("db.", "replica.")).replica_database_url

    assert replica is not None
    assert (replica.host, replica.sslmode) == ("replica.example.com", "require")
    assert read(DATABASE_URL=REMOTE).replica_database_url is None
    assert read(DATABASE_URL=LOCAL, DATABASE_REPLICA_URL=REMOTE).replica_database_url is None
    with pytest.raises(ConfigurationError, match="DATABASE_REPLICA_URL has sslmode=disable"):
        _ = read(DATABASE_URL=REMOTE, DATABASE_REPLICA_URL=f"{REMOTE}?sslmode=disable").replica_database_url


def test_the_commit_comes_from_the_platform() -> None:
    assert read(VERCEL_GIT_COMMIT_SHA="abc123").commit == "abc123"
    assert read(APP_COMMIT="v1.2-rc_3").commit == "v1.2-rc_3"
    assert read(APP_COMMIT="def456", VERCEL_GIT_COMMIT_SHA="abc123").commit == "abc123"


@pytest.mark.parametrize("value", ["two words", "a\nSet-Cookie: x", "é", "a" * 65])
def test_a_commit_that_is_no_header_is_refused(value: str) -> None:
    error = refusal(APP_COMMIT=value)

    assert "APP_COMMIT" in error.message
    assert value not in told(error)


@pytest.mark.parametrize("environ", [{"VERCEL": "1"}, {"AWS_LAMBDA_FUNCTION_NAME": "health"}])
def test_vercel_and_lambda_are_serverless(environ: dict[str, str]) -> None:
    assert Settings.read(environ).is_serverless is True


def test_empty_counts_as_not_set() -> None:
    names = [variable.name for variable in VARIABLES]
    names += ["VERCEL", "VERCEL_GIT_COMMIT_SHA", "AWS_LAMBDA_FUNCTION_NAME"]

    for empty in ("", "  "):
        settings = Settings.read(dict.fromkeys(names, empty))
        assert vars(settings) | {"_environ": {}} == vars(read()) | {"_environ": {}}
        assert settings.database_url == read().database_url


# -- TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["db.example.com", "127.0.0.1"])
@pytest.mark.parametrize("mode", [None, "disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_database_ssl_beats_the_urls_sslmode(host: str, mode: str | None) -> None:
    url = f"postgresql://app@{host}/app" + (f"?sslmode={mode}" if mode else "")

    for environment in ("development", "production"):
        settings = read(APP_ENV=environment, DATABASE_URL=url, DATABASE_SSL="true")
        assert settings.database_url.sslmode == (mode if mode in ("verify-ca", "verify-full") else "require")


@pytest.mark.parametrize("mode", [None, "disable", "require", "verify-full"])
def test_database_disable_ssl_beats_the_urls_sslmode(mode: str | None) -> None:
    url = f"{REMOTE}?channel_binding=require" + (f"&sslmode={mode}&sslrootcert=system" if mode else "")

    for environment in ("development", "production"):
        settings = read(APP_ENV=environment, DATABASE_URL=url, DATABASE_DISABLE_SSL="true")
        assert settings.database_url.params == {"sslmode": "disable"}


def test_forcing_and_disabling_tls_at_once_is_an_error() -> None:
    error = refusal(DATABASE_URL=LOCAL, DATABASE_SSL="true", DATABASE_DISABLE_SSL="true")

    assert "DATABASE_SSL" in error.message
    assert "DATABASE_DISABLE_SSL" in error.message
    assert error.solutions


@pytest.mark.parametrize("environment", ["preview", "production"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_production_refuses_weak_tls_to_another_machine(environment: str, mode: str) -> None:
    error = refusal(APP_ENV=environment, DATABASE_URL=f"{REMOTE}?sslmode={mode}")

    assert f"DATABASE_URL has sslmode={mode}" in error.message
    assert "sslmode=require" in error.message
    assert any("DATABASE_DISABLE_SSL" in solution for solution in error.solutions)
    assert CANARY not in told(error)


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
@pytest.mark.parametrize("environment", ["development", "test", "preview", "production"])
def test_a_local_database_needs_no_tls(environment: str, mode: str) -> None:
    assert read(APP_ENV=environment, DATABASE_URL=f"{LOCAL}?sslmode={mode}").database_url.sslmode == mode


@pytest.mark.parametrize("mode", ["allow", "disable", "prefer", "require", "verify-full"])
def test_development_keeps_the_urls_sslmode(mode: str) -> None:
    url = f"{REMOTE}?sslmode={mode}&sslrootcert=/ca.pem"

    assert read(APP_ENV="development", DATABASE_URL=url).database_url.sslmode == mode


# -- wrong values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("APP_ENV", "staging", "development, test, preview, production"),
        ("VERCEL_ENV", "staging", "development, test, preview, production"),
        ("NODE_ENV", "prod", "development, test, preview, production"),
        ("DATABASE_DRIVER", "asyncpg", "psycopg, pg8000"),
        ("DATABASE_SSL", "require", "true, false"),
        ("DATABASE_DISABLE_SSL", "2", "true, false"),
        ("MIGRATION_REQUIRE_FORCE", "maybe", "true, false"),
        ("MIGRATION_DRYRUN", "t", "true, false"),
        ("MIGRATION_FORCE", "force", "true, false"),
        ("DATABASE_POOL_MAX", "0", "1 to 100"),
        ("DATABASE_POOL_MAX", "101", "1 to 100"),
        ("DATABASE_POOL_IDLE_TIMEOUT", "0.5", "1 to 3600"),
        ("DATABASE_POOL_TIMEOUT", "-1", "0 to 900"),
        ("REQUEST_TIMEOUT", "10s", "1 to 900"),
        ("REQUEST_TIMEOUT", "nan", "1 to 900"),
        ("POSTGRES_PORT", "65536", "1 to 65535"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    error = refusal(**{name: value})

    assert error.message == f'{name} is "{value}".'
    assert allowed in " ".join(error.solutions)


def test_a_fraction_of_a_connection_is_refused() -> None:
    error = refusal(DATABASE_POOL_MAX="1.5")

    assert "DATABASE_POOL_MAX" in error.message
    assert "1 to 100" in error.solutions[0]


@pytest.mark.parametrize(
    "origins",
    ["app.example.com", "https://app.example.com/", "*, https://a.example.com", "https://*.example.com", "ftp://a"],
)
def test_a_wrong_origin_is_refused(origins: str) -> None:
    error = refusal(CORS_ALLOW_ORIGINS=origins)

    assert "CORS_ALLOW_ORIGINS" in error.message
    assert "https://app.example.com" in error.solutions[0]


@pytest.mark.parametrize("truth", ["true", "TRUE", "1", "yes", "on"])
def test_truth_is_written_in_several_ways(truth: str) -> None:
    assert read(MIGRATION_FORCE=truth).migration_force is True


@pytest.mark.parametrize("untruth", ["false", "False", "0", "no", "off", ""])
def test_untruth_is_written_in_several_ways(untruth: str) -> None:
    assert read(MIGRATION_FORCE=untruth).migration_force is False


SECRETS = (
    CANARY,
    "hunter2",
    "ChangeMe123!",
    "Tr0ub4dor&3",
    "0123456789abcdef0123456789abcdef",
    "correct horse battery staple",
    REMOTE,
    f"postgresql://app:{CANARY}",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_the_wrong_variable_is_never_repeated(secret: str) -> None:
    public = ("ADMIN_EMAIL", "APP_COMMIT", "CORS_ALLOW_ORIGINS", "POSTGRES_USER", "POSTGRES_DB")
    names = [variable.name for variable in VARIABLES if variable.name not in public]
    refused = 0
    for name, environment in itertools.product(names, ("development", "production")):
        environ = {"APP_ENV": environment, "DATABASE_URL": REMOTE, name: secret}
        if name.startswith("POSTGRES_"):
            del environ["DATABASE_URL"]
        shown = what_is_shown_of(environ)
        refused += shown.startswith("refused")
        assert secret not in shown, name
        assert CANARY not in shown, name
    assert refused >= 22  # at least these have rules: eleven variables, in two environments


def what_is_shown_of(environ: Mapping[str, str]) -> str:
    try:
        settings = Settings.read(environ)
        return f"{settings!r} {settings.database_url} {settings.direct_database_url}"
    except ConfigurationError as error:
        return f"refused: {told(error)}"


def test_no_secret_is_shown() -> None:
    settings = read(
        APP_ENV="test",
        DATABASE_URL=LOCAL,
        ADMIN_INITIAL_PASSWORD=f"admin-{CANARY}",
        POSTGRES_PASSWORD=f"local-{CANARY}",
    )

    for shown in (settings, settings.database_url, settings.local_database, VARIABLES):
        assert CANARY not in repr(shown)
        assert CANARY not in str(shown)
        assert CANARY not in f"{shown}"


@pytest.mark.parametrize("name", [variable.name for variable in VARIABLES])
def test_a_secret_in_the_wrong_variable_is_not_shown(name: str) -> None:
    shown = ""
    try:
        settings = Settings.read({name: f"{CANARY}/?#@%"})
        shown = repr(settings)
        _ = settings.database_url
    except ConfigurationError as error:
        shown += told(error)

    assert CANARY not in shown


# -- reading ----------------------------------------------------------------------------------------


def test_the_environment_is_read_lazily_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    reset_settings()

    first = get_settings()
    assert first.environment == "production"

    monkeypatch.setenv("APP_ENV", "test")
    monkeypatch.setenv("DATABASE_URL", LOCAL)
    assert get_settings() is first
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        _ = first.database_url

    reset_settings()
    assert get_settings().environment == "test"
    assert get_settings().database_url is get_settings().database_url


def test_a_wrong_environment_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "nonsense")
    with pytest.raises(ConfigurationError):
        get_settings()

    monkeypatch.setenv("APP_ENV", "test")
    assert get_settings().environment == "test"


def test_only_the_variables_of_the_table_and_of_the_platforms_are_read() -> None:
    class Recorder(dict[str, str]):
        def __init__(self, environ: Mapping[str, str]) -> None:
            super().__init__(environ)
            self.asked: set[str] = set()

        def get(self, key: str, *_: object) -> str:
            self.asked.add(key)
            return ""

        def __contains__(self, key: object) -> bool:
            self.asked.add(str(key))
            return False

    environ = Recorder({})
    settings = Settings.read(environ)
    _ = settings.database_url, settings.direct_database_url, settings.replica_database_url

    platforms = {"VERCEL", "VERCEL_GIT_COMMIT_SHA", "AWS_LAMBDA_FUNCTION_NAME"}
    assert environ.asked - platforms == {variable.name for variable in VARIABLES}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read().environment = "production"  # type: ignore[misc]

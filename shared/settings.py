"""The environment, read once and lazily into one frozen object.

`VARIABLES` is the one table of every variable: its default and meaning. The docs and `.env.example` are compared with
it by a test. Nothing here is read at import: a function whose environment is wrong still starts, and says what is.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple, cast

from shared.db import credentials, providers, tls
from shared.db.url import DatabaseURL, Host
from shared.errors import ConfigurationError

Environment = Literal["development", "test", "preview", "production"]
ENVIRONMENTS: tuple[Environment, ...] = ("development", "test", "preview", "production")
# The first of each that is set counts.
DATABASE_URLS = ("DATABASE_URL", "POSTGRES_URL")
DIRECT_URLS = ("DIRECT_URL", "DATABASE_URL_UNPOOLED", "POSTGRES_URL_NON_POOLING")
REPLICA_URL = "DATABASE_REPLICA_URL"
_TOKEN_LENGTH = 16  # characters, at least
DEFAULT_ADMIN_PASSWORD = "ChangeMe123!"  # noqa: S105 - documented, and refused in production


class Variable(NamedTuple):
    """One environment variable: `default` as a person reads it, `secret` where its value is never shown."""

    name: str
    default: str
    meaning: str
    secret: bool = False


VARIABLES = (
    Variable(
        "DATABASE_URL",
        "required; a local database in development",
        "PostgreSQL connection string",
        secret=True,
    ),
    Variable("POSTGRES_URL", "set by Vercel's integrations", "Read where DATABASE_URL is not set", secret=True),
    Variable(
        "DIRECT_URL",
        "found from DATABASE_URL where its provider is known",
        "The server itself where DATABASE_URL leads to a pooler: for migrations, locks and dumps",
        secret=True,
    ),
    Variable("DATABASE_URL_UNPOOLED", "set by Neon", "Read where DIRECT_URL is not set", secret=True),
    Variable(
        "POSTGRES_URL_NON_POOLING",
        "set by Vercel's integrations",
        "Read where neither DIRECT_URL nor DATABASE_URL_UNPOOLED is set",
        secret=True,
    ),
    Variable(
        "DATABASE_REPLICA_URL",
        "not set: reads go to the primary",
        "Replica for the reads of `shared.db.replica`; several hosts and target_session_attrs=prefer-standby fall back",
        secret=True,
    ),
    Variable(
        "DATABASE_URL_SECRET_ARN",
        "not set",
        "Secret of AWS Secrets Manager that holds the connection string, or user and password for DATABASE_URL's host",
    ),
    Variable(
        "DATABASE_URL_SSM_PARAMETER",
        "not set",
        "Parameter of AWS Systems Manager that holds the same; a SecureString",
    ),
    Variable("DATABASE_IAM_AUTH", "false", "Log in to RDS with IAM tokens in the place of DATABASE_URL's password"),
    Variable(
        "DATABASE_SSL",
        "true in production and preview, unless the database is on the same machine",
        "Force TLS everywhere: sslmode=require, unless the URL asks for a stronger one",
    ),
    Variable(
        "DATABASE_DISABLE_SSL",
        "false",
        "Switch TLS off, whatever the URL says. Not recommended for production",
    ),
    Variable("DATABASE_DRIVER", "psycopg", "`psycopg`, or `pg8000` where psycopg cannot be loaded"),
    Variable("DATABASE_POOL_MAX", "by where it runs", "Connections that one process may hold at most"),
    Variable("DATABASE_POOL_IDLE_TIMEOUT", "by where it runs", "Seconds after which an idle connection is closed"),
    Variable("DATABASE_POOL_TIMEOUT", "15", "Seconds to wait for a connection; 0: as long as the deadline allows"),
    Variable(
        "APP_ENV", "by VERCEL_ENV, NODE_ENV, or where it runs", "`development`, `test`, `preview` or `production`"
    ),
    Variable("VERCEL_ENV", "set by Vercel", "Read as APP_ENV where that is not set"),
    Variable("NODE_ENV", "not set", "Read as APP_ENV where neither APP_ENV nor VERCEL_ENV is set"),
    Variable("APP_COMMIT", "VERCEL_GIT_COMMIT_SHA on Vercel", "The deployed commit, for the header X-Deployed-Commit"),
    Variable("MIGRATION_REQUIRE_FORCE", "false", "In production, migrate only with --force or MIGRATION_FORCE=true"),
    Variable("MIGRATION_DRYRUN", "false", "Show what would be migrated and change nothing"),
    Variable("MIGRATION_FORCE", "false", "Migrate although MIGRATION_REQUIRE_FORCE=true"),
    Variable(
        "MIGRATION_LOCK_TIMEOUT",
        "3",
        "Seconds that a migration's statement waits for a lock, with others queued behind it, before it lets them pass",
    ),
    Variable("ADMIN_EMAIL", "admin@example.com", "E-mail address of the first admin user"),
    Variable(
        "ADMIN_INITIAL_PASSWORD",
        f"{DEFAULT_ADMIN_PASSWORD} in development and test; required in production and preview",
        "Password of the first admin user",
        secret=True,
    ),
    Variable(
        "CRON_SECRET",
        "not set: nobody may call",
        "What Vercel's cron shows to /api/watch as its bearer token",
        secret=True,
    ),
    Variable("WATCH_INTERVAL", "300", "Seconds between two looks at the database by a long-lived server; 0: never"),
    Variable(
        "WATCH_END_IDLE_IN_TRANSACTION",
        "not set: none is ended",
        "Seconds after which the periodic check ends a session that is idle in a transaction",
    ),
    Variable(
        "WATCH_CANCEL_QUERIES",
        "not set: none is cancelled",
        "Seconds after which the periodic check cancels a running query",
    ),
    Variable(
        "ALERT_WEBHOOK_URL",
        "not set",
        "Where changes of the database's health are posted, as Slack takes them",
        secret=True,
    ),
    Variable(
        "OPERATOR_TOKEN",
        "not set: nobody is let in",
        "What an operator signs in with at GET /, and shows to GET /api/db/health as Authorization: Bearer; at least "
        "16 characters",
        secret=True,
    ),
    Variable(
        "HEALTH_CACHE_SECONDS",
        "1",
        "Seconds for which GET /api/health repeats that the database answered; longer lets one at rest sleep",
    ),
    Variable("CORS_ALLOW_ORIGINS", "none", "Origins that browsers may call from, separated by commas, or *"),
    Variable("REQUEST_TIMEOUT", "25", "Seconds that a request may take, unless the platform's deadline is earlier"),
    Variable("POSTGRES_USER", "chatmaps", "Local database: user name"),
    Variable("POSTGRES_PASSWORD", "chatmaps_dev_password", "Local database: password", secret=True),
    Variable("POSTGRES_DB", "chatmaps", "Local database: its name"),
    Variable("POSTGRES_PORT", "5438", "Local database: its port; `make dev` takes the next free one"),
)


@dataclass(frozen=True)
class Settings:
    """What the environment says. Wrong values raise ConfigurationError; the database's only when it is asked for."""

    environment: Environment
    environment_is_named: bool  # by APP_ENV, VERCEL_ENV or NODE_ENV, rather than guessed from where this runs
    database_driver: Literal["psycopg", "pg8000"]
    database_iam_auth: bool
    migration_require_force: bool
    migration_dryrun: bool
    migration_force: bool
    migration_lock_timeout: float  # seconds
    admin_email: str = field(repr=False)  # a person's address, or what was pasted in its place
    admin_initial_password: str | None = field(repr=False)
    cron_secret: str | None = field(repr=False)
    watch_interval: float  # seconds; 0: never
    watch_end_idle_in_transaction: float | None  # seconds
    watch_cancel_queries: float | None  # seconds
    alert_webhook_url: str | None = field(repr=False)
    operator_token: str | None = field(repr=False)  # None: nobody is let in
    health_cache: float  # seconds
    cors_allow_origins: tuple[str, ...]
    request_timeout: float  # seconds
    commit: str | None  # of the deployment, where the platform tells
    is_serverless: bool  # Vercel or Lambda: many instances, each frozen at will
    database_pool_max: int | None
    database_pool_idle_timeout: float | None  # seconds
    database_pool_timeout: float | None  # seconds; 0: as long as the deadline allows
    _environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Settings":
        """Read and check every variable but the database's. Raises ConfigurationError naming the variable."""
        environment = _environment(environ)
        interval = _number(environ, "WATCH_INTERVAL", low=0, high=86400)
        default_password = None if environment in ("preview", "production") else DEFAULT_ADMIN_PASSWORD
        return cls(
            environment=environment,
            environment_is_named=_named_environment(environ) is not None,
            database_driver=cast(
                Literal["psycopg", "pg8000"],
                _choice(environ, "DATABASE_DRIVER", ("psycopg", "pg8000")) or "psycopg",
            ),
            database_iam_auth=_iam_auth(environ),
            migration_require_force=_truth(environ, "MIGRATION_REQUIRE_FORCE"),
            migration_dryrun=_truth(environ, "MIGRATION_DRYRUN"),
            migration_force=_truth(environ, "MIGRATION_FORCE"),
            migration_lock_timeout=_number(environ, "MIGRATION_LOCK_TIMEOUT", low=0.1, high=60) or 3.0,
            admin_email=_text(environ, "ADMIN_EMAIL") or "admin@example.com",
            admin_initial_password=_text(environ, "ADMIN_INITIAL_PASSWORD") or default_password,
            cron_secret=_text(environ, "CRON_SECRET"),
            watch_interval=300.0 if interval is None else interval,
            watch_end_idle_in_transaction=_number(environ, "WATCH_END_IDLE_IN_TRANSACTION", low=1, high=86400),
            watch_cancel_queries=_number(environ, "WATCH_CANCEL_QUERIES", low=1, high=86400),
            alert_webhook_url=_webhook(environ),
            operator_token=_token(environ, "OPERATOR_TOKEN"),
            health_cache=_number_or(1.0, environ, "HEALTH_CACHE_SECONDS", low=0, high=86400),
            cors_allow_origins=_origins(environ),
            request_timeout=_number(environ, "REQUEST_TIMEOUT", low=1, high=900) or 25.0,
            commit=_commit(environ),
            is_serverless=_on_lambda(environ) or _text(environ, "VERCEL") is not None,
            database_pool_max=_whole_number(environ, "DATABASE_POOL_MAX", low=1, high=100),
            database_pool_idle_timeout=_number(environ, "DATABASE_POOL_IDLE_TIMEOUT", low=1, high=3600),
            database_pool_timeout=_number(environ, "DATABASE_POOL_TIMEOUT", low=0, high=900),
            _environ=environ,
        )

    @property
    def is_production_like(self) -> bool:
        """Tell whether production's rules on TLS and passwords apply: a preview is on the internet too."""
        return self.environment in ("preview", "production")

    @property
    def database_url(self) -> DatabaseURL:
        """Parse DATABASE_URL and settle its TLS, with the password from where it is kept.

        Raises ConfigurationError where it is missing or wrong, or AWS does not give the password.
        """
        if self.password_store is not None:
            return self.password_store.url()
        return self._tokens.url(self._configured_url) if self.database_iam_auth else self._configured_url

    def refreshed_database_url(self) -> DatabaseURL:
        """Read the password anew, since the server refused it. Raises ConfigurationError as `database_url` does."""
        if self.password_store is not None:
            return self.password_store.refreshed()
        self._tokens.forget()
        return self.database_url

    @property
    def known_passwords(self) -> frozenset[str]:
        """Give the passwords that this process has come to know, for masking: AWS is not asked for it.

        Raises ConfigurationError as `database_url` does.
        """
        if self.password_store is not None:
            known = self.password_store.passwords
        elif self.database_iam_auth:
            known = self._tokens.passwords
        else:
            known = {self._configured_url.password or ""}
        with contextlib.suppress(ConfigurationError):  # where it is wrong, the others are masked all the same
            if self._configured_replica is not None:
                known = known | {self._configured_replica.password or ""}
        return frozenset(known)

    @cached_property
    def _configured_url(self) -> DatabaseURL:
        found = self._url_of(DATABASE_URLS)
        if found is not None:
            return found
        if self.is_production_like:
            raise ConfigurationError(
                f"DATABASE_URL is not set, and the environment is {self.environment}.",
                solutions=["Set it to postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require."],
            )
        return self._with_tls(self.local_database, "DATABASE_URL")

    @cached_property
    def password_store(self) -> credentials.Stored | None:
        """Find the store that keeps the connection string or its password; None where the environment holds it."""
        found = credentials.store_of(self._environ)
        if found is None:
            return None
        return credentials.Stored(found[1], self.url_from)

    def url_from(self, text: str) -> DatabaseURL:
        """Make a connection string of what a store keeps, with DATABASE_URL for what that lacks.

        Raises ConfigurationError.
        """
        found = credentials.store_of(self._environ)
        source = f"The secret that {found[0]} names" if found else "What is kept"
        return self._with_tls(credentials.read(text, self._url_of(DATABASE_URLS), source), source)

    @cached_property
    def _tokens(self) -> credentials.Tokens:
        return credentials.Tokens()

    @property
    def direct_database_url(self) -> DatabaseURL | None:
        """Give the URL of the server itself, past any pooler; None where neither a variable nor the provider tells it.

        One without a password logs in as DATABASE_URL does. Raises ConfigurationError as `database_url` does.
        """
        url = self.database_url
        named = self._url_of(DIRECT_URLS)
        # A provider's variables in .env must not lead the work on a local database to the real one.
        if named is None or (url.is_local and not named.is_local):
            direct = providers.direct_url(url)
            return self._tokens.url(direct) if direct is not None and self.database_iam_auth else direct
        return self._with_login(named, url)

    @property
    def replica_database_url(self) -> DatabaseURL | None:
        """Give the URL for reads that may be a moment old; None where they go to the primary.

        One without a password logs in as DATABASE_URL does. Raises ConfigurationError as `database_url` does.
        """
        named = self._configured_replica
        if named is None:
            return None
        url = self.database_url
        # As above: work on a local database must not read from the real one.
        return None if url.is_local and not named.is_local else self._with_login(named, url)

    @cached_property
    def _configured_replica(self) -> DatabaseURL | None:
        named = self._url_of((REPLICA_URL,))
        wanted = None if named is None else named.params.get("target_session_attrs")
        if wanted in ("primary", "read-write"):
            raise ConfigurationError(
                f"{REPLICA_URL} asks for a server that takes writes: target_session_attrs={wanted}.",
                solutions=["Write target_session_attrs=prefer-standby: any standby, else the primary."],
            )
        return named

    def _with_login(self, named: DatabaseURL, url: DatabaseURL) -> DatabaseURL:
        """Complete another URL than DATABASE_URL with how that one logs in."""
        if named.password is not None:
            return named
        if self.database_iam_auth:
            return self._tokens.url(replace(named, user=named.user or url.user))
        if self.password_store is not None and named.user in ("", url.user):
            return replace(named, user=url.user, password=url.password)
        return named

    def _url_of(self, names: tuple[str, ...]) -> DatabaseURL | None:
        for name in names:
            text = _text(self._environ, name)
            if text is not None:
                return self._with_tls(DatabaseURL.parse(text, variable=name), name)
        return None

    def _with_tls(self, url: DatabaseURL, name: str) -> DatabaseURL:
        return tls.apply_policy(
            url,
            production_like=self.is_production_like,
            # A token is sent as it is: who reads it logs in with it.
            force=_truth(self._environ, "DATABASE_SSL") or self.database_iam_auth,
            disable=_truth(self._environ, "DATABASE_DISABLE_SSL"),
            variable=name,
        )

    @property
    def local_database(self) -> DatabaseURL:
        """Give the URL of the local development database, from the POSTGRES_* variables."""
        return DatabaseURL(
            hosts=(Host("127.0.0.1", _whole_number(self._environ, "POSTGRES_PORT", low=1, high=65535) or 5438),),
            user=_text(self._environ, "POSTGRES_USER") or "chatmaps",
            password=_text(self._environ, "POSTGRES_PASSWORD") or "chatmaps_dev_password",
            database=_text(self._environ, "POSTGRES_DB") or "chatmaps",
        )


_current: Settings | None = None


def get_settings() -> Settings:
    """Give this process's settings, read from its environment at the first call."""
    global _current
    if _current is None:
        _current = Settings.read(dict(os.environ))
    return _current


def reset_settings() -> None:
    """Forget the settings, so that the next call reads the environment again."""
    global _current
    _current = None


def _named_environment(environ: Mapping[str, str]) -> Environment | None:
    for name in ("APP_ENV", "VERCEL_ENV", "NODE_ENV"):
        value = _choice(environ, name, ENVIRONMENTS)
        if value is not None:
            return cast(Environment, value)
    return None


def _environment(environ: Mapping[str, str]) -> Environment:
    named = _named_environment(environ)
    if named is not None:
        return named
    if _on_lambda(environ):
        return "production"
    text = next(filter(None, (_text(environ, name) for name in DATABASE_URLS)), None)
    if text is None:
        return "production" if credentials.store_of(environ) else "development"
    try:
        return "development" if DatabaseURL.parse(text).is_local else "production"
    except ConfigurationError:
        return "production"  # the stricter rules, until the URL can be read; reading it reports what is wrong


def _on_lambda(environ: Mapping[str, str]) -> bool:
    return _text(environ, "AWS_LAMBDA_FUNCTION_NAME") is not None


def _iam_auth(environ: Mapping[str, str]) -> bool:
    """Read DATABASE_IAM_AUTH, which excludes what would hold a password."""
    wanted = _truth(environ, credentials.IAM)
    if wanted and credentials.store_of(environ):
        raise ConfigurationError(
            f"{credentials.IAM} is true, and a secret is named too.",
            solutions=[f"Remove {credentials.IAM}, or {credentials.SECRET} and {credentials.PARAMETER}."],
        )
    return wanted


def _text(environ: Mapping[str, str], name: str) -> str | None:
    """Read a variable; an empty one counts as not set, as most platforms' forms leave it so."""
    return environ.get(name, "").strip() or None


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = _text(environ, name)
    if value is None or value.lower() in allowed:
        return value.lower() if value else None
    raise ConfigurationError(f"{name} {_shown(value)}.", solutions=[f"Allowed: {', '.join(allowed)}."])


def _truth(environ: Mapping[str, str], name: str) -> bool:
    value = (_text(environ, name) or "false").lower()
    if value in ("true", "1", "yes", "on"):
        return True
    if value in ("false", "0", "no", "off"):
        return False
    raise ConfigurationError(f"{name} {_shown(value)}.", solutions=["Allowed: true, false."])


def _number(environ: Mapping[str, str], name: str, *, low: float, high: float) -> float | None:
    value = _text(environ, name)
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value) and low <= float(value) <= high:
        return float(value)
    raise ConfigurationError(f"{name} {_shown(value)}.", solutions=[f"Allowed: a number from {low:g} to {high:g}."])


def _number_or(default: float, environ: Mapping[str, str], name: str, *, low: float, high: float) -> float:
    value = _number(environ, name, low=low, high=high)
    return default if value is None else value


def _token(environ: Mapping[str, str], name: str) -> str | None:
    """Read a secret that is compared with what a caller shows: one that can be guessed is worse than none."""
    value = _text(environ, name)
    if value is not None and len(value) < _TOKEN_LENGTH:
        trouble = f"{name} is shorter than {_TOKEN_LENGTH} characters."
        raise ConfigurationError(trouble, solutions=["Take the output of openssl rand -hex 32."])
    return value


def _whole_number(environ: Mapping[str, str], name: str, *, low: int, high: int) -> int | None:
    value = _number(environ, name, low=low, high=high)
    if value is None or value.is_integer():
        return None if value is None else int(value)
    raise ConfigurationError(f"{name} is not a whole number.", solutions=[f"Allowed: {low} to {high}."])


def _origins(environ: Mapping[str, str]) -> tuple[str, ...]:
    origins = tuple(filter(None, (part.strip() for part in environ.get("CORS_ALLOW_ORIGINS", "").split(","))))
    for origin in origins:
        if origins != ("*",) and not re.fullmatch(r"https?://[^/?#@*\s]+", origin):
            raise ConfigurationError(
                "CORS_ALLOW_ORIGINS holds something that is not an origin.",
                solutions=["Write origins such as https://app.example.com, without a path, or * alone."],
            )
    return origins


def _webhook(environ: Mapping[str, str]) -> str | None:
    value = _text(environ, "ALERT_WEBHOOK_URL")
    if value is None or re.fullmatch(r"https?://[^/?#\s]+\S*", value):
        return value
    raise ConfigurationError(
        "ALERT_WEBHOOK_URL is not a URL.", solutions=["Copy it as the chat gives it: https://hooks.example.com/..."]
    )


def _commit(environ: Mapping[str, str]) -> str | None:
    for name in ("VERCEL_GIT_COMMIT_SHA", "APP_COMMIT"):
        value = _text(environ, name)
        if value is not None:
            if not re.fullmatch(r"[\w.-]{1,64}", value, re.ASCII):  # it becomes a header
                raise ConfigurationError(f"{name} does not hold a commit.", solutions=["Allowed: its hash or a tag."])
            return value
    return None


def _shown(value: str) -> str:
    """Repeat a wrong value only where it is too plain to be a secret that was pasted into the wrong field."""
    plain = re.fullmatch(r"[A-Za-z]{1,10}|-?[0-9.]{1,6}[a-z]{0,2}", value)
    return f'is "{value}"' if plain else "has a value that is not allowed"

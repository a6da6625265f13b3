"""What each provider's connection string, as it is copied from its console, tells us."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from shared import db
from shared.db import providers
from shared.db.providers import PROVIDERS, Pooler, better_for_functions, direct_url, provider_of, role_of
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.shared.db.conftest import Use

DOCS = Path(__file__).parents[3] / "docs" / "CONNECTIONS.md"


class Pasted(NamedTuple):
    """A connection string, and what must be made of it; `direct` is "same", a part of the direct URL, or None."""

    text: str
    name: str
    pooler: Pooler
    direct: str | None = "same"


PASTED = (
    Pasted(
        "postgresql://neondb_owner:npg_AbC123@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech/neondb"
        "?sslmode=require&channel_binding=require",
        "Neon",
        "none",
    ),
    Pasted(
        "postgresql://neondb_owner:npg_AbC123@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb"
        "?sslmode=require&channel_binding=require",
        "Neon, pooled",
        "transaction",
        "@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech:5432/neondb?",
    ),
    Pasted(  # as Neon's integration sets POSTGRES_PRISMA_URL, in a newer region
        "postgres://default:npg_AbC123@ep-icy-water-ae0115ox-pooler.c-2.us-east-2.aws.neon.tech/verceldb"
        "?connect_timeout=15&sslmode=require&pgbouncer=true",
        "Neon, pooled",
        "transaction",
        "@ep-icy-water-ae0115ox.c-2.us-east-2.aws.neon.tech:5432/verceldb?",
    ),
    Pasted(  # a client without SNI
        "postgresql://alex:AbC123@ep-a-1-pooler.eu-central-1.aws.neon.tech/db"
        "?options=endpoint%3Dep-a-1-pooler&sslmode=require",
        "Neon, pooled",
        "transaction",
        "options=endpoint%3Dep-a-1&",
    ),
    Pasted(
        "postgres://default:AbC@ep-rough-snow-123456-pooler.us-east-1.postgres.vercel-storage.com:5432/verceldb",
        "Vercel Postgres, pooled",
        "transaction",
        "@ep-rough-snow-123456.us-east-1.postgres.vercel-storage.com:5432/",
    ),
    Pasted(
        "postgres://default:AbC@ep-rough-snow-123456.us-east-1.postgres.vercel-storage.com:5432/verceldb",
        "Vercel Postgres",
        "none",
    ),
    Pasted("postgresql://postgres:pw@db.apbkobhfnmcqqzqeeqss.supabase.co:5432/postgres", "Supabase", "none"),
    Pasted(
        "postgresql://postgres:pw@db.apbkobhfnmcqqzqeeqss.supabase.co:6543/postgres?pgbouncer=true",
        "Supabase, dedicated pooler",
        "transaction",
        "@db.apbkobhfnmcqqzqeeqss.supabase.co:5432/",
    ),
    Pasted(
        "postgresql://postgres.apbkobhfnmcqqzqeeqss:pw@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        "Supabase, session pooler",
        "session",
    ),
    Pasted(
        "postgres://postgres.apbkobhfnmcqqzqeeqss:pw@aws-1-us-east-1.pooler.supabase.com:6543/postgres"
        "?sslmode=require&supa=base-pooler.x",
        "Supabase, transaction pooler",
        "transaction",
        "@aws-1-us-east-1.pooler.supabase.com:5432/",
    ),
    Pasted(
        "postgresql://postgres.apbkobhfnmcqqzqeeqss:pw@aws-0-us-east-1.pooler.supabase.com:6543/postgres"
        "?pgbouncer=true&connection_limit=1",
        "Supabase, transaction pooler",
        "transaction",
        "@aws-0-us-east-1.pooler.supabase.com:5432/",
    ),
    Pasted("postgresql://postgres:pw@postgres.railway.internal:5432/railway", "Railway", "none"),
    Pasted("postgresql://postgres:pw@monorail.proxy.rlwy.net:34567/railway", "Railway", "none"),
    Pasted("postgresql://postgres:pw@containers-us-west-12.railway.app:6543/railway", "Railway", "none"),
    Pasted("postgresql://postgres:pw@pgbouncer.railway.internal:6432/railway", "PgBouncer", "transaction", None),
    Pasted("postgresql://app_user:pw@dpg-cn1abcde1hbls73a-a/app", "Render", "none"),
    Pasted("postgresql://app_user:pw@dpg-cn1abcde1hbls73a-a.oregon-postgres.render.com/app", "Render", "none"),
    Pasted(
        "postgresql://doadmin:AVNS_pw@db-postgresql-nyc3-12345-do-user-1234567-0.c.db.ondigitalocean.com:25060/"
        "defaultdb?sslmode=require",
        "DigitalOcean",
        "none",
    ),
    Pasted(
        "postgresql://doadmin:AVNS_pw@private-db-postgresql-nyc3-12345-do-user-1234567-0.c.db.ondigitalocean.com:25061/"
        "app-pool?sslmode=require",
        "DigitalOcean, connection pool",
        "transaction",
        None,
    ),
    Pasted("postgresql://postgres:pw@mydb.c9akciq32rgx.us-east-1.rds.amazonaws.com:5432/postgres", "AWS RDS", "none"),
    Pasted("postgresql://postgres:pw@mydb.cdl8ar96w1hm.rds.cn-north-1.amazonaws.com.cn:5432/app", "AWS RDS", "none"),
    Pasted(
        "postgresql://postgres:pw@app.cluster-c9akciq32rgx.us-east-1.rds.amazonaws.com/postgres", "AWS Aurora", "none"
    ),
    Pasted(
        "postgresql://postgres:pw@app.cluster-ro-c9akciq32rgx.cn-north-1.rds.amazonaws.com.cn/app", "AWS Aurora", "none"
    ),
    Pasted(
        "postgresql://app:pw@my-proxy.proxy-c9akciq32rgx.us-east-1.rds.amazonaws.com:5432/app",
        "AWS RDS Proxy",
        "rds_proxy",
        None,
    ),
    Pasted(
        "postgresql://app:pw@readers.endpoint.proxy-ab0cd1efghij.rds.cn-northwest-1.amazonaws.com.cn/app",
        "AWS RDS Proxy",
        "rds_proxy",
        None,
    ),
    Pasted("postgresql://app:pw@/app?host=/cloudsql/project:europe-west1:instance", "Google Cloud SQL", "none"),
    Pasted("postgresql://app:pw@298474959c18.25pf3r4b6sfkn.asia-northeast2.sql.goog/app", "Google Cloud SQL", "none"),
    Pasted("postgresql://app:pw@10.1.2.3:6432/app", "PgBouncer", "transaction", None),
    Pasted("postgresql://app:pw@myserver.postgres.database.azure.com:5432/app?sslmode=require", "Azure", "none"),
    Pasted(
        "postgresql://app:pw@myserver.postgres.database.azure.com:6432/app?sslmode=require",
        "Azure, PgBouncer",
        "transaction",
        "@myserver.postgres.database.azure.com:5432/",
    ),
    Pasted("postgresql://citus:pw@c-app.abcdefgh.postgres.cosmos.azure.com:5432/citus", "Azure", "none"),
    Pasted("postgresql://app:pw@db.example.com/app", "PostgreSQL", "none"),
    Pasted("postgresql:///app?host=/var/run/postgresql", "PostgreSQL", "none"),
    Pasted("postgresql://app:pw@db.example.com/app?pgbouncer=true", "PgBouncer", "transaction", None),
    Pasted("postgresql://app:pw@db.example.com:6432/app?pgbouncer=false", "PgBouncer", "none"),
)


@pytest.mark.parametrize("pasted", PASTED, ids=[f"{pasted.name} {n}" for n, pasted in enumerate(PASTED)])
def test_a_string_as_pasted_is_understood(pasted: Pasted) -> None:
    url = DatabaseURL.parse(pasted.text)
    provider = provider_of(url)

    assert (provider.name, provider.pooler) == (pasted.name, pasted.pooler)
    direct = direct_url(url)
    if pasted.direct == "same":
        assert direct == url
    elif pasted.direct is None:
        assert direct is None
    else:
        assert direct is not None
        assert pasted.direct in direct.render(password=True)
        assert provider_of(direct).keeps_session
        assert (direct.user, direct.password, direct.database) == (url.user, url.password, url.database)
        assert direct_url(direct) == direct


@pytest.mark.parametrize("pasted", PASTED, ids=[f"{pasted.name} {n}" for n, pasted in enumerate(PASTED)])
def test_what_is_rendered_again_means_the_same(pasted: Pasted) -> None:
    url = DatabaseURL.parse(pasted.text)
    again = DatabaseURL.parse(url.render(password=True))

    assert again.connect_kwargs() == url.connect_kwargs()
    # The hints of other clients are not for libpq's tools.
    assert {name: value for name, value in again.hints.items() if name in url.hints} == {}


def test_every_row_has_an_example() -> None:
    assert {pasted.name for pasted in PASTED} == {provider.name for provider in PROVIDERS}


def test_a_look_alike_is_not_taken_for_a_provider() -> None:
    for host in ("neon.tech.example.com", "xneon.tech", "ep-a-pooler.example.com", "rds.amazonaws.com.evil.org"):
        assert provider_of(DatabaseURL.parse(f"postgresql://u@{host}/db")).name == "PostgreSQL"
    assert provider_of(DatabaseURL.parse("postgresql://u@EP-A-POOLER.eu.aws.NEON.tech./db")).name == "Neon, pooled"


def test_the_role_behind_supabases_shared_pooler_is_without_the_project() -> None:
    assert role_of(DatabaseURL.parse("postgresql://postgres.ref:p@aws-0-x.pooler.supabase.com:6543/db")) == "postgres"
    assert role_of(DatabaseURL.parse("postgresql://first.last:p@db.example.com/db")) == "first.last"


# -- the direct URL, by variable --------------------------------------------------------------------

POOLED = "postgresql://app:pw@ep-a-1-pooler.eu-central-1.aws.neon.tech/app"
FOUND = "postgresql://app:pw@ep-a-1.eu-central-1.aws.neon.tech/app"
UNKNOWN = "postgresql://app:pw@db.example.com:6432/app"
DIRECT = "postgresql://app:pw@db.example.com:5432/app"
OTHER = "postgresql://app:pw@other.example.com:5432/app"


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({"DATABASE_URL": POOLED}, "ep-a-1.eu-central-1.aws.neon.tech"),
        ({"DATABASE_URL": FOUND}, "ep-a-1.eu-central-1.aws.neon.tech"),
        ({"DATABASE_URL": UNKNOWN}, None),
        ({"POSTGRES_URL": POOLED}, "ep-a-1.eu-central-1.aws.neon.tech"),
        ({"DATABASE_URL": UNKNOWN, "POSTGRES_URL_NON_POOLING": DIRECT}, "db.example.com"),
        ({"POSTGRES_URL": UNKNOWN, "POSTGRES_URL_NON_POOLING": DIRECT}, "db.example.com"),
        (
            {"DATABASE_URL": UNKNOWN, "DATABASE_URL_UNPOOLED": DIRECT, "POSTGRES_URL_NON_POOLING": OTHER},
            "db.example.com",
        ),
        ({"DATABASE_URL": POOLED, "DIRECT_URL": DIRECT, "DATABASE_URL_UNPOOLED": OTHER}, "db.example.com"),
        ({"DATABASE_URL": FOUND, "DIRECT_URL": DIRECT}, "db.example.com"),
    ],
)
def test_the_direct_url_comes_from_a_variable_or_the_provider(environ: dict[str, str], host: str | None) -> None:
    settings = Settings.read(environ)
    direct = settings.direct_database_url

    assert settings.environment == "production"
    assert (direct and direct.host) == host
    if direct is not None:
        assert direct.sslmode == "require"  # the policy holds for it, too


def test_a_local_database_is_not_left_for_a_remote_direct_url() -> None:
    local = "postgresql://app:pw@127.0.0.1:5438/app"

    settings = Settings.read({"DATABASE_URL": local, "DIRECT_URL": DIRECT})
    assert settings.direct_database_url == settings.database_url
    assert Settings.read({"DIRECT_URL": DIRECT}).direct_database_url == Settings.read({}).database_url

    pooled = Settings.read({"DATABASE_URL": "postgresql://app:pw@127.0.0.1:6432/app", "DIRECT_URL": local})
    assert pooled.direct_database_url is not None
    assert pooled.direct_database_url.port == 5438


def test_a_wrong_direct_url_is_named_by_its_variable() -> None:
    for name in ("DIRECT_URL", "DATABASE_URL_UNPOOLED", "POSTGRES_URL_NON_POOLING"):
        with pytest.raises(ConfigurationError, match=f"^{name} "):
            _ = Settings.read({"DATABASE_URL": POOLED, name: "mysql://app:pw@db/app"}).direct_database_url
        with pytest.raises(ConfigurationError, match=f"^{name} has sslmode=disable"):
            _ = Settings.read({"DATABASE_URL": POOLED, name: f"{DIRECT}?sslmode=disable"}).direct_database_url
    with pytest.raises(ConfigurationError, match=r"^POSTGRES_URL "):
        _ = Settings.read({"POSTGRES_URL": "mysql://app:pw@db/app"}).database_url


def test_database_url_beats_postgres_url() -> None:
    assert Settings.read({"DATABASE_URL": POOLED, "POSTGRES_URL": OTHER}).database_url.host.startswith("ep-a-1-pooler")


# -- a session pooler from functions (acceptance case 5) --------------------------------------------

SESSION = "postgresql://postgres.ref:pw@aws-0-eu-central-1.pooler.supabase.com:5432/postgres"


@pytest.mark.parametrize(
    ("environ", "warned"), [({"VERCEL": "1"}, 1), ({"AWS_LAMBDA_FUNCTION_NAME": "health"}, 1), ({}, 0)]
)
def test_an_instance_on_a_session_pooler_is_told_the_better_port_once(
    use: Use, caplog: pytest.LogCaptureFixture, environ: dict[str, str], warned: int
) -> None:
    use(SESSION, **environ)

    for _ in range(3):
        db.get_pool()
        db.get_connector()

    assert len([message for message in caplog.messages if "port 6543" in message]) == warned
    assert len(caplog.messages) == warned


def test_only_a_session_pooler_has_a_better_port() -> None:
    better = better_for_functions(DatabaseURL.parse(SESSION))
    assert better is not None
    assert (better.port, provider_of(better).name) == (6543, "Supabase, transaction pooler")
    for pasted in PASTED:
        if pasted.pooler != "session":
            assert better_for_functions(DatabaseURL.parse(pasted.text)) is None


# -- what other clients' parameters do --------------------------------------------------------------


def test_prismas_parameters_are_honoured(use: Use, driver: str, database: str) -> None:
    use(f"{database}?schema=My%20%22Schema%5C&connection_limit=3&pool_timeout=0&socket_timeout=5")
    with db.transaction() as tx:
        tx.execute('CREATE SCHEMA "My ""Schema\\"')
        tx.execute("CREATE TABLE here (n int)")

    assert db.fetch_value("SELECT current_schema()") == 'My "Schema\\'
    assert db.fetch_value("SELECT to_regclass('here')::text") == "here"
    assert (db.get_pool().max_size, db.get_pool().timeout) == (3, None)


def test_a_schema_behind_a_pooler_is_refused_with_the_statement_that_helps(
    use: Use, database: str, pgbouncer: PgBouncer, postgres: Postgres
) -> None:
    through = pgbouncer.url(database)
    use(f"{through}?pgbouncer=true&schema=Mine")
    with pytest.raises(ConfigurationError, match="schema=Mine") as caught:
        db.fetch_value("SELECT 1")
    assert caught.value.solutions[0].startswith('ALTER ROLE "app" SET search_path = "Mine";')

    use(f"{through}?pgbouncer=true&schema=public")
    assert db.fetch_value("SELECT current_schema()") == "public"


# -- the documentation ------------------------------------------------------------------------------


def test_the_documented_table_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|(?: (.*?) ?)?\|$", DOCS.read_text("utf-8"), re.MULTILINE)
    documented = [row for row in rows if row[0] in {provider.name for provider in PROVIDERS}]

    assert documented == [
        (provider.name, provider.pooler, _direct_in_words(provider), provider.note) for provider in PROVIDERS
    ]


def _direct_in_words(provider: providers.Provider) -> str:
    if provider.keeps_session:
        return "the same"
    return "DIRECT_URL" if provider.direct is None else "found"

"""Connection strings as providers hand them out, compared with libpq, with drivers, and with what must not be told."""

import contextlib
from collections.abc import Mapping
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from shared.db.drivers import connect
from shared.db.url import FOREIGN_PARAMETERS, LIBPQ_PARAMETERS, DatabaseURL, Host
from shared.errors import ConfigurationError
from tests.servers.postgres import APP_PASSWORD

HARD = "p%@/:?#&+ é"
HARD_ENCODED = "p%25%40%2F%3A%3F%23%26%2B%20%C3%A9"

many = hypothesis_settings(database=None, deadline=None, derandomize=True, max_examples=100)


def parsed(text: str) -> DatabaseURL:
    return DatabaseURL.parse(text)


def refusal(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseURL.parse(text)
    return caught.value


def told(error: ConfigurationError) -> str:
    return " ".join([str(error), repr(error), *error.solutions])


def as_libpq_reads(text: str) -> dict[str, str]:
    """Return libpq's reading of a URL, with what it takes for granted at the time of the connection filled in."""
    read = {name: str(value) for name, value in conninfo_to_dict(text).items() if value != ""}
    hosts = [host or "localhost" for host in read.get("host", "localhost").split(",")]
    ports = [port or "5432" for port in read.get("port", "5432").split(",")]
    read["host"] = ",".join(hosts)
    read["port"] = ",".join(ports * len(hosts) if len(ports) == 1 else ports)
    if "user" in read:
        read.setdefault("dbname", read["user"])
    return read


# -- as providers hand them out ---------------------------------------------------------------------

PROVIDERS: Mapping[str, tuple[str, dict[str, object]]] = {
    "guide": (
        "postgresql://user:pass@host:5432/db?sslmode=require",
        {"host": "host", "port": 5432, "user": "user", "password": "pass", "database": "db", "sslmode": "require"},
    ),
    "guide, serverless": (
        "postgresql://user:pass@host:5432/db?pool_timeout=0&connect_timeout=10",
        {"params": {"connect_timeout": "10"}, "hints": {"pool_timeout": "0"}},
    ),
    "neon": (
        "postgresql://neondb_owner:npg_abc@ep-cool-darkness-123456.us-east-2.aws.neon.tech/neondb"
        "?sslmode=require&channel_binding=require",
        {"port": 5432, "database": "neondb", "params": {"sslmode": "require", "channel_binding": "require"}},
    ),
    "neon, pooled": (
        "postgres://neondb_owner:npg_abc@ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require",
        {"host": "ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech"},
    ),
    "neon, endpoint": (
        "postgresql://u:p@ep-x-1.aws.neon.tech/neondb?options=endpoint%3Dep-x-1&sslmode=require",
        {"params": {"options": "endpoint=ep-x-1", "sslmode": "require"}},
    ),
    "supabase": (
        "postgresql://postgres:pw@db.abcdefghij.supabase.co:5432/postgres",
        {"user": "postgres", "port": 5432, "database": "postgres"},
    ),
    "supabase, session pooler": (
        "postgres://postgres.abcdefghij:pw@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        {"user": "postgres.abcdefghij", "port": 5432},
    ),
    "supabase, transaction pooler": (
        "postgres://postgres.abcdefghij:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres"
        "?pgbouncer=true&connection_limit=1&supa=base-pooler.x&sslmode=require",
        {
            "port": 6543,
            "params": {"sslmode": "require"},
            "hints": {"pgbouncer": "true", "connection_limit": "1", "supa": "base-pooler.x"},
        },
    ),
    "railway": (
        "postgresql://postgres:AbC@containers-us-west-1.railway.app:6789/railway",
        {"host": "containers-us-west-1.railway.app", "port": 6789},
    ),
    "render": (
        "postgresql://u:p@dpg-abc-a.oregon-postgres.render.com/db_abcd",
        {"port": 5432, "database": "db_abcd"},
    ),
    "digitalocean": (
        "postgresql://doadmin:AVNS_x@db-1-do-user-1-0.b.db.ondigitalocean.com:25061/pool?sslmode=require",
        {"port": 25061, "database": "pool"},
    ),
    "rds": (
        "postgresql://u:p@mydb.abc.eu-central-1.rds.amazonaws.com:5432/app?sslmode=verify-full&sslrootcert=/rds.pem",
        {"params": {"sslmode": "verify-full", "sslrootcert": "/rds.pem"}},
    ),
    "cloud sql": (
        f"postgresql://u:{HARD_ENCODED}@/app?host=/cloudsql/project:region:instance",
        {"host": "/cloudsql/project:region:instance", "password": HARD, "database": "app", "is_local": False},
    ),
    "cloud sql, for Prisma": (
        "postgresql://u:p@localhost:5433/app?schema=public&host=/cloudsql/p:r:i",
        {"host": "/cloudsql/p:r:i", "port": 5433, "hints": {"schema": "public"}},
    ),
    "azure": (
        "postgres://admin%40server:p@server.postgres.database.azure.com:6432/postgres?sslmode=require",
        {"user": "admin@server", "port": 6432},
    ),
    "prisma": (
        "postgresql://u:p@h/db?schema=public&statement_cache_size=0&socket_timeout=3&sslaccept=strict",
        {"sslmode": "verify-full", "params": {"sslmode": "verify-full"}},
    ),
    "sqlalchemy": (
        "postgresql+psycopg://u:p@h/db?prepared_statement_cache_size=0",
        {"user": "u", "host": "h", "params": {}},
    ),
    "node": ("postgres://u:p@h/db?ssl=true&uselibpqcompat=true", {"sslmode": "require"}),
    "several hosts": (
        "postgresql://u:p@a.example.com:5432,b.example.com:5433/db?target_session_attrs=read-write",
        {
            "hosts": (Host("a.example.com", 5432), Host("b.example.com", 5433)),
            "params": {"target_session_attrs": "read-write"},
        },
    ),
    "socket": ("postgresql://u@/db?host=/var/run/postgresql", {"host": "/var/run/postgresql", "is_local": True}),
    "socket, encoded": ("postgresql://u@%2Fvar%2Frun%2Fpostgresql/db", {"host": "/var/run/postgresql"}),
    "ipv6": ("postgresql://u:p@[2001:db8::1]:5433/db", {"host": "2001:db8::1", "port": 5433, "is_local": False}),
    "ipv6, local": ("postgresql://u:p@[::1]/db", {"host": "::1", "is_local": True}),
    "quoted": (" 'postgresql://u:p@h/db' \n", {"password": "p", "database": "db"}),
    "double-quoted": ('"postgresql://u:p@h/db"', {"password": "p", "database": "db"}),
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_urls_are_understood_as_pasted(provider: str) -> None:
    text, expected = PROVIDERS[provider]

    url = parsed(text)

    assert {name: getattr(url, name) for name in expected} == expected


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_reaches_libpq_that_it_does_not_know(provider: str) -> None:
    url = parsed(PROVIDERS[provider][0])
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}

    assert url.connect_kwargs().keys() <= known
    assert as_libpq_reads(url.render(password=True)) == url.connect_kwargs()


def test_libpq_knows_all_that_is_passed_on() -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}

    assert known >= LIBPQ_PARAMETERS
    assert not known & FOREIGN_PARAMETERS.keys()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "POSTGRESQL", "postgresql+psycopg2", "postgres+pg8000"])
def test_schemes_of_every_client(scheme: str) -> None:
    assert parsed(f"{scheme}://u:p@h/db") == parsed("postgresql://u:p@h:5432/db")


@pytest.mark.parametrize(
    ("query", "sslmode"),
    [
        ("ssl=true", "require"),
        ("ssl=1", "require"),
        ("ssl=false", "disable"),
        ("ssl=verify-full", "verify-full"),
        ("ssl=false&sslmode=verify-ca", "verify-ca"),
        ("sslaccept=strict", "verify-full"),
        ("sslaccept=accept_invalid_certs", "require"),
        ("application_name=x", None),
    ],
)
def test_the_sslmode_of_other_clients(query: str, sslmode: str | None) -> None:
    assert parsed(f"postgresql://u:p@h/db?{query}").sslmode == sslmode


# -- libpq ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    """
    postgresql://u:p@h/db
    postgresql://u:p@h:6000/db
    postgresql:///db
    postgresql://h
    postgresql://u@h
    postgresql://u@/db
    postgresql://u@:6000/db
    postgresql://u:@h/db
    postgresql://:p@h/db
    postgresql://u:a:b@h/db
    postgresql://u:p#x@h/db
    postgresql://u:p%40%2F%3A@h/db
    postgresql://u:p%c3%a4@h/db
    postgresql://u:pä@h/db
    postgresql://u:p@h/
    postgresql://u:p@h?sslmode=require
    postgresql://u:p@h/?sslmode=require
    postgresql://u:p@h/db?
    postgresql://u:p@h/d%20b
    postgresql://u:p@h/a/b
    postgresql://u:p@h:/db
    postgresql://u:p@H.Example.COM/Db
    postgresql://h?user=a&password=b&dbname=c
    postgresql://u:p@h/db?user=a&password=b&dbname=c
    postgresql://u:p@h/db?port=2
    postgresql://u:p@h:1/db?port=2
    postgresql://u:p@h:1/db?host=/tmp
    postgresql://u:p@/db?host=/cloudsql/p:r:i
    postgresql://u:p@localhost:5433/db?host=/cloudsql/p:r:i
    postgresql:///db?host=/a,/b&port=1,2
    postgresql:///db?host=/a,/b&port=3
    postgresql://u:p@h1:1,h2:2/db
    postgresql://u:p@h1,h2:2/db
    postgresql://u:p@h1,h2/db?port=1,2
    postgresql://u:p@h1:1,h2:2,h3/db?target_session_attrs=read-write&load_balance_hosts=random
    postgresql://u:p@h,/db
    postgresql://u:p@[::1]:6000/db
    postgresql://[::1],[::2]:7/db
    postgresql://u:p@[fe80::1%25eth0]/db
    postgresql://u:p@%2Fvar%2Frun:6000/db
    postgresql://u:p@%40abstract/db
    postgresql://u:p@h/db?application_name=a%26b
    postgresql://u:p@h/db?application_name=a+b
    postgresql://u:p@h/db?application_name=x@y
    postgresql://u:p@h/db?application_name=
    postgresql://u:p@h/db?options=-c%20geqo%3Doff
    postgresql://u:p@h/db?sslmode=require&
    postgresql://u:p@h/db?sslmode=require&sslmode=verify-full
    postgresql://u:p@h/db?sslmode=require&sslrootcert=system
    """.split(),
)
def test_libpq_reads_the_same(text: str) -> None:
    url = parsed(text)

    assert url.connect_kwargs() == as_libpq_reads(text)
    assert as_libpq_reads(url.render(password=True)) == as_libpq_reads(text)


# -- the password -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoded", [HARD_ENCODED, quote(HARD, safe=""), "p%25@%2f:%3f#&+ é"])
def test_a_hard_password_survives(encoded: str) -> None:
    url = parsed(f"postgresql://u:{encoded}@h/db")

    assert url.password == HARD
    assert url.render(password=True) == f"postgresql://u:{HARD_ENCODED}@h:5432/db"
    assert conninfo_to_dict(url.render(password=True)) == url.connect_kwargs()


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_a_hard_password_opens_the_database(database: str, driver: str) -> None:
    assert APP_PASSWORD == HARD
    url = parsed(parsed(database).render(password=True))

    with contextlib.closing(connect(url, driver, connect_timeout=10)) as connection:
        assert connection.fetch("SELECT current_user::text AS me") == [{"me": url.user}]


def test_a_hard_password_opens_the_database_through_libpqs_own_reading(database: str) -> None:
    with psycopg.connect(parsed(database).render(password=True)) as connection:
        assert connection.info.password == HARD


@pytest.mark.parametrize(
    "url",
    [
        DatabaseURL(hosts=(Host("h"),), user="u", password="s3cret"),
        parsed("postgresql://u:s3cret@h/db"),
        parsed("postgresql://h/db?user=u&password=s3cret"),
        parsed("postgresql://u:s3cret@h/db?sslpassword=s3cret"),
        parsed("postgresql://u:s3cret@/db?host=/tmp"),
    ],
)
def test_the_password_is_not_shown(url: DatabaseURL) -> None:
    assert url.password == "s3cret"
    for shown in (repr(url), str(url), f"{url}", url.masked(), url.render(password=False)):
        assert "s3cret" not in shown
    assert ":********@" in url.masked()
    assert "s3cret" in url.render(password=True)


def test_no_stars_are_shown_where_there_is_no_password() -> None:
    assert parsed("postgresql://u@h/db").masked() == "postgresql://u@h:5432/db"


# -- refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told_what", "told_to_do"),
    [
        ("", "is not a PostgreSQL connection URL", "postgresql://"),
        ("db.example.com", "is not a PostgreSQL connection URL", "postgresql://"),
        ("host=h dbname=db", "is not a PostgreSQL connection URL", "postgresql://"),
        ("mysql://u:p@h/db", "does not begin with postgresql://", "postgresql://"),
        ("https://u:p@h/db", "does not begin with postgresql://", "postgresql://"),
        ("psql 'postgresql://u:p@h/db'", "does not begin with postgresql://", "postgresql://"),
        ("jdbc:postgresql://h/db?user=u&password=p", "begins with jdbc:postgresql://", "plain connection string"),
        ("prisma://accelerate.prisma-data.net/?api_key=p", "begins with prisma://", "plain connection string"),
        ("prisma+postgres://localhost:1/?api_key=p", "begins with prisma+postgres://", "plain connection string"),
        ("postgresql+asyncpg://u:p@h/db", "asks for asyncpg", "Remove +asyncpg"),
        ("postgresql+pygresql://u:p@h/db", "a driver that this project does not use", "DATABASE_DRIVER"),
        ("postgresql://postgres:[YOUR-PASSWORD]@db.x.supabase.co:5432/postgres", "placeholder", "password"),
        ("postgresql://u:********@h/db", "placeholder", "password"),
        ("postgresql://u:p%zz@h/db", "has a % in its password", "%25"),
        ("postgresql://u:100%@h/db", "has a % in its password", "%25"),
        ("postgresql://u%:p@h/db", "has a % in its user name", "%25"),
        ("postgresql://u:p@h/db%", "has a % in its database name", "%25"),
        ("postgresql://u:p@h/db?application_name=%", "has a % in its parameter application_name", "%25"),
        ("postgresql://u:%ff@h/db", "in its password that is not UTF-8", "postgresql://"),
        ("postgresql://u:%00@h/db", "in its password that is not UTF-8", "postgresql://"),
        ("postgresql://u:p@h:port/db", "has a port", "postgresql://"),
        ("postgresql://u:p@h:0/db", "has a port", "postgresql://"),
        ("postgresql://u:p@h:65536/db", "has a port", "postgresql://"),
        ("postgresql://u:p@h:٣/db", "has a port", "postgresql://"),
        (f"postgresql://u:p@h:{'9' * 5000}/db", "has a port", "postgresql://"),
        ("postgresql://u:p@h1,h2,h3/db?port=1,2", "as many ports as hosts", "postgresql://"),
        ("postgresql://u:p@::1/db", "host and port that cannot be told apart", "[::1]:5432"),
        ("postgresql://u:pa/ss@h/db", "unescaped /", "%2F"),
        ("postgresql://u:pa?ss@h/db", "unescaped", "%3F"),
        ("postgresql://u@d:pa/ss@h/db", "unescaped /", "%2F"),
        ("postgresql://u:p@h/db#main", "has a #", "%23"),
        ("postgresql://u:p@h/db # production", "has a #", "%23"),
        ("postgresql://u:p@h/db\nAPP_ENV=test", "line break", "one line"),
        ("postgresql://u:p@h\u200b/db", "invisible character", "one line"),
        ("postgresql://u:p\udcff@h/db", "invisible character", "one line"),
        ("postgresql://u:p@h/db?sslmode=verify_full", "wrong sslmode", "verify-full"),
        ("postgresql://u:p@h/db?ssl=maybe", "wrong value for ssl", "true"),
        ("postgresql://u:p@h/db?sslaccept=maybe", "wrong value for sslaccept", "strict"),
        ("postgresql://u:p@h/db?connect_timeout=soon", "connect_timeout", "connect_timeout=10"),
        ("postgresql://u:p@h/db?connect_timeout=٣", "connect_timeout", "connect_timeout=10"),
        ("postgresql://u:p@h/db?pool_timeout=-1", "pool_timeout", "pool_timeout=10"),
        ("postgresql://u:p@h/db?connection_limit=many", "connection_limit", "connection_limit=10"),
        ("postgresql://u:p@h/db?connection_limit=0", "connection_limit=0", "at least 1"),
        ("postgresql://u:p@h/db?pgbouncer=perhaps", "pgbouncer", "true, false"),
        ("postgresql://u:p@h/db?sslmode", "have no value: sslmode", "NAME=VALUE"),
        ("postgresql://u:p@h/db?b=1&a=2", "are not known or have no value: a, b", "spelling"),
        ("postgresql://u:p@127.0.0.1/db?hostaddr=192.0.2.1", "hostaddr", "remove"),
        ("postgresql://u:p@h/db?service=x", "service", "remove"),
    ],
)
def test_what_is_wrong_is_told(text: str, told_what: str, told_to_do: str) -> None:
    error = refusal(text)

    assert error.message.startswith("DATABASE_URL ")
    assert told_what in error.message
    assert told_to_do in " ".join(error.solutions)


def test_the_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^DIRECT_URL "):
        DatabaseURL.parse("nonsense", variable="DIRECT_URL")


SECRET = "s3cret"
BROKEN = f"""
    {SECRET}
    {SECRET}://
    {SECRET}://u:{SECRET}@h/db
    {SECRET}+postgres://u:{SECRET}@h/db
    postgresql+{SECRET}://u:p@h/db
    prisma://accelerate.example.com/?api_key={SECRET}
    prisma+{SECRET}://h/
    jdbc:postgresql://h/db?password={SECRET}
    postgresql+asyncpg://u:{SECRET}@h/db
    postgresql://u:{SECRET}@h:port/db
    postgresql://u:{SECRET}%@h/db
    postgresql://u:{SECRET}%ff@h/db
    postgresql://u:[{SECRET}]@h/db
    postgresql://u:{SECRET}@h/db?nonsense=1
    postgresql://u:{SECRET}@h/db?sslmode=x
    postgresql://u:{SECRET}@h/db?sslmode
    postgresql://u:{SECRET}@h/db#x
    postgresql://u:{SECRET}
    postgresql://u:/{SECRET}@h/db
    postgresql://u:?{SECRET}@h/db
    postgresql://u:?{SECRET}=@h/db
    postgresql://u:?{SECRET}=%@h/db
    postgresql://u:?{SECRET}&x=1@h/db
    postgresql://u:?x=1&{SECRET}@h/db
    postgresql://u:1?{SECRET}=1@h/db
    postgresql://u:/x?{SECRET}&x=@h/db
    postgresql://u:#{SECRET}
    postgresql://u@d:12/{SECRET}@h/db
    postgresql://u@d:12?{SECRET}&x=1@h/db
    postgresql://u:p:{SECRET}/@h
    """.split()


@pytest.mark.parametrize("text", BROKEN)
def test_an_error_never_repeats_the_password(text: str) -> None:
    assert SECRET not in told(refusal(text))


# -- properties -------------------------------------------------------------------------------------

# PostgreSQL's names and passwords hold any character but NUL; an environment variable holds what UTF-8 can.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
hosts = st.one_of(
    st.from_regex(r"[a-z0-9-]{1,10}(\.[a-z]{2,5}){0,2}", fullmatch=True),
    st.ip_addresses().map(str),
    st.from_regex(r"/[a-zA-Z0-9:_./-]{1,20}", fullmatch=True),
    st.just("fe80::1%eth0"),
)
urls = st.builds(
    DatabaseURL,
    hosts=st.lists(st.builds(Host, hosts, st.integers(1, 65535)), min_size=1, max_size=3).map(tuple),
    user=texts,
    password=st.one_of(st.none(), texts),
    database=texts,
    params=st.dictionaries(st.sampled_from(sorted(LIBPQ_PARAMETERS - {"sslmode", "connect_timeout"})), texts),
)


@many
@given(urls)
def test_what_is_rendered_parses_to_the_same(url: DatabaseURL) -> None:
    assert parsed(url.render(password=True)) == url


@many
@given(urls)
def test_libpq_reads_what_is_rendered(url: DatabaseURL) -> None:
    assert conninfo_to_dict(url.render(password=True)) == url.connect_kwargs()


@many
@given(st.text())
def test_arbitrary_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        parsed(text)


fragments = st.sampled_from(["@", ":", "/", "?", "#", "&", "=", "%", "%2F", "[", "]", ",", "u", "12", "h", "sslmode"])


@many
@given(st.lists(fragments, max_size=12), st.lists(fragments, max_size=12))
def test_no_error_repeats_the_password_whatever_surrounds_it(before: list[str], after: list[str]) -> None:
    try:
        shown = parsed(f"postgresql://u:{''.join(before)}{SECRET}{''.join(after)}@h/db").masked()
    except ConfigurationError as error:
        shown = told(error)

    assert SECRET not in shown


@many
@given(urls)
def test_no_password_is_shown_in_any_form(url: DatabaseURL) -> None:
    secret = DatabaseURL(url.hosts, "u", f"{SECRET}{url.password}", "db", {"sslpassword": SECRET})

    assert SECRET not in f"{secret!r} {secret} {secret.masked()}"

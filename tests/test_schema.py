"""The schema said three times: in the migrations, as SQLAlchemy metadata, and in docs/SCHEMA.md."""

import re
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from migrations import runner
from migrations.comparison import include_name
from shared.db import schema
from shared.settings import reset_settings
from tests.migrations import catalog
from tests.servers.postgres import Postgres

PAGE = Path(__file__).parent.parent / "docs" / "SCHEMA.md"


@pytest.fixture
def migrated(any_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a migrated database of each major version in turn."""
    monkeypatch.setenv("DATABASE_URL", any_database)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    runner.deploy(report=lambda _: None)
    return any_database


def test_metadata_and_migrated_database_agree_for_alembic(migrated: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(migrated), poolclass=NullPool)
    with engine.connect() as connection:
        opts = {"compare_type": True, "compare_server_default": True, "include_name": include_name}
        context = MigrationContext.configure(connection, opts=opts)
        differences = compare_metadata(context, schema.metadata)

    assert differences == []


def test_metadata_makes_the_same_tables_as_the_migrations(migrated: str, any_postgres: Postgres) -> None:
    """Alembic does not compare checks, predicates of indexes, ON DELETE and identities; PostgreSQL's catalogs do."""
    with any_postgres.database() as name:
        url = any_postgres.url(name)
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
        schema.metadata.create_all(engine)

        assert catalog.schema(url, routines=False) == catalog.schema(migrated, routines=False)


QUERIES: dict[str, LiteralString] = {
    "tables and columns without a comment": r"""
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum >= 0
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
          AND relname NOT LIKE 'migration\_%'
          AND NOT attisdropped AND (col_description(c.oid, attnum) IS NULL OR obj_description(c.oid) IS NULL)
    """,
    "foreign keys without an index that begins with them": """
        SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index WHERE indrelid = conrelid AND indpred IS NULL
              AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey)
    """,
    "times without a time zone": """
        SELECT attrelid::regclass, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND atttypid = 'timestamp'::regtype
    """,
    "updated_at without a trigger": """
        SELECT attrelid::regclass FROM pg_attribute JOIN pg_class c ON c.oid = attrelid AND relkind = 'r'
        WHERE relnamespace = 'public'::regnamespace AND attname = 'updated_at' AND NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = attrelid AND tgfoid = 'set_updated_at'::regproc)
    """,
    "tables without a primary key": """
        SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = pg_class.oid AND contype = 'p')
    """,
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_there_are_no(migrated_database: str, query: LiteralString) -> None:
    assert catalog.rows(migrated_database, query) == []


USER = "INSERT INTO users (email, password_hash) VALUES ('a@b.c', '$argon2id$x')"
SUBSCRIPTION = (
    "INSERT INTO subscriptions (user_id, plan_id, current_period_end, status, canceled_at) "
    "SELECT u.id, p.id, now() + '1 month', '{}', {} FROM users u, plans p WHERE u.role = 'admin' AND p.code = 'free'"
)
SESSION = (
    "INSERT INTO sessions (user_id, token_hash, expires_at) SELECT id, sha256('t'), now() + interval '1 day' FROM users"
)

REFUSED = {
    "one address in two cases": ([USER, USER.replace("a@b.c", "A@B.C")], "users_lower_email_key"),
    "what is no address": ([USER.replace("a@b.c", "a b@c")], "users_email_check"),
    "a password that is no hash": ([USER.replace("$argon2id$x", "hunter2")], "users_password_hash_check"),
    "an unknown role": ([USER, "UPDATE users SET role = 'root'"], "users_role_check"),
    "a token that is no SHA-256": ([SESSION.replace("sha256('t')", "'t'")], "sessions_token_hash_check"),
    "one token twice": ([SESSION, SESSION], "sessions_token_hash_key"),
    "a session that ends before it begins": ([SESSION.replace("+", "-")], "sessions_expires_at_check"),
    "a negative price": (["UPDATE plans SET price_cents = -1"], "plans_price_cents_check"),
    "a currency in words": (["UPDATE plans SET currency = 'dollar'"], "plans_currency_check"),
    "features that are a list": (["UPDATE plans SET features = '[]'"], "plans_features_check"),
    "an unknown interval": (["UPDATE plans SET billing_interval = 'day'"], "plans_billing_interval_check"),
    "two current subscriptions of one person": (
        [SUBSCRIPTION.format("active", "NULL"), SUBSCRIPTION.format("trialing", "NULL")],
        "subscriptions_one_current_per_user_key",
    ),
    "canceled without a time": ([SUBSCRIPTION.format("canceled", "NULL")], "subscriptions_canceled_at_check"),
    "an unknown status": ([SUBSCRIPTION.format("paused", "NULL")], "subscriptions_status_check"),
    "a plan that is subscribed to goes": (
        [SUBSCRIPTION.format("active", "NULL"), "DELETE FROM plans"],
        "subscriptions_plan_id_fkey",
    ),
}


@pytest.mark.parametrize(("statements", "constraint"), REFUSED.values(), ids=REFUSED.keys())
def test_the_database_refuses(migrated_database: str, statements: list[str], constraint: str) -> None:
    with psycopg.connect(migrated_database) as connection:
        for statement in statements[:-1]:
            connection.execute(statement.encode())
        with pytest.raises(psycopg.errors.IntegrityError) as caught:
            connection.execute(statements[-1].encode())

    assert caught.value.diag.constraint_name == constraint


def test_canceled_subscriptions_stay_beside_a_current_one(migrated_database: str) -> None:
    with psycopg.connect(migrated_database) as connection:
        for status, canceled_at in (("canceled", "now()"), ("canceled", "now()"), ("active", "NULL")):
            connection.execute(SUBSCRIPTION.format(status, canceled_at).encode())


def test_a_person_s_rows_go_with_the_person(migrated_database: str) -> None:
    with psycopg.connect(migrated_database) as connection:
        connection.execute(SESSION)
        connection.execute(SUBSCRIPTION.format("active", "NULL").encode())
        connection.execute("DELETE FROM users")
        left = connection.execute("SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM subscriptions)")
        assert left.fetchone() == (0,)


def test_updated_at_follows_changes_and_only_changes(migrated_database: str) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:

        def updated_at(statement: LiteralString) -> object:
            connection.execute(statement)
            row = connection.execute("SELECT updated_at FROM plans WHERE code = 'free'").fetchone()
            assert row is not None
            return row[0]

        first = updated_at("SELECT")
        assert updated_at("UPDATE plans SET name = name") == first
        assert updated_at("UPDATE plans SET name = 'x', updated_at = '2000-01-01'") > first  # type: ignore[operator]


def test_the_page_names_every_table_and_column_and_no_other() -> None:
    """docs/SCHEMA.md: a heading with the table's name, and below it a table whose first column names the columns."""
    sections = re.split(r"^## `(\w+)`$", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    described = {
        name: re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }

    assert described == {
        table.name: [column.name for column in table.columns] for table in schema.metadata.sorted_tables
    }


def test_the_page_tells_each_column_s_type_as_it_is(migrated_database: str) -> None:
    sections = re.split(r"^## `(\w+)`$", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    told = {
        (table, column, type_)
        for table, text in zip(sections[::2], sections[1::2], strict=True)
        for column, type_ in re.findall(r"^\| `(\w+)` \| (\w+) \|", text, flags=re.MULTILINE)
    }

    found = catalog.rows(
        migrated_database,
        "SELECT table_name::text, column_name::text, replace(data_type, 'timestamp with time zone', 'timestamptz') "
        "FROM information_schema.columns WHERE table_schema = 'public' "
        "AND table_name <> 'alembic_version' AND table_name NOT LIKE 'migration\\_%'",
    )
    assert told == set(found)

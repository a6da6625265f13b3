"""A database with one of everything that a backup must bring back, and how to tell whether it did."""

from typing import Any

import psycopg

from tests.servers.postgres import Postgres

READER = "backup_reader"  # a role that a right and a policy name

_FILL = rf"""
CREATE EXTENSION pg_trgm;
CREATE SCHEMA "Other Schema";
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TYPE span AS RANGE (subtype = float8);
CREATE DOMAIN short AS text CHECK (length(VALUE) < 10);
CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, mood mood DEFAULT 'calm');
INSERT INTO note (body) SELECT repeat(md5(i::text), 20) FROM generate_series(1, 2000) i;
CREATE INDEX ON note USING gin (body gin_trgm_ops);
CREATE TABLE "Other Schema".part (k int, v short) PARTITION BY RANGE (k);
CREATE TABLE "Other Schema".low PARTITION OF "Other Schema".part FOR VALUES FROM (0) TO (100);
CREATE TABLE "Other Schema".high PARTITION OF "Other Schema".part FOR VALUES FROM (100) TO (200);
INSERT INTO "Other Schema".part SELECT i, 'v' || i FROM generate_series(0, 199) i;
CREATE SEQUENCE counter START 5;
SELECT nextval('counter'), nextval('counter');
CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * $1';
CREATE VIEW loud AS SELECT twice(id::integer) FROM note WHERE mood = 'cross';
CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n FROM note;
CREATE TABLE alembic_version (version_num text);
INSERT INTO alembic_version VALUES ('20260101000000');
ALTER TABLE note ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON note FOR SELECT TO {READER} USING (mood = 'calm');
GRANT SELECT ON note TO {READER};
SELECT lo_from_bytea(0, decode(md5('large'), 'hex')), lo_from_bytea(0, '\x00ff');
"""

# Everything of users in a few rows: contents, sequences, large objects, definitions, rights.
_STATE = (
    "SELECT count(*), md5(string_agg(n::text, '|' ORDER BY id)) FROM note n",
    "SELECT md5(string_agg(p::text, '|' ORDER BY k)) FROM \"Other Schema\".part p",
    "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2",
    "SELECT oid, lo_get(oid) FROM pg_largeobject_metadata ORDER BY 1",
    "SELECT * FROM sums, alembic_version",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "SELECT indexdef FROM pg_indexes WHERE schemaname IN ('public', 'Other Schema') ORDER BY 1",
    "SELECT polname, polroles::regrole[]::text FROM pg_policy",
    f"SELECT has_table_privilege('{READER}', 'note', 'SELECT'), twice(4), 'x'::short, 'cross'::mood, '[1,2]'::span",
)


def fill(postgres: Postgres, url: str) -> None:
    """Put one of everything into a database."""
    postgres.admin().execute(f"DO $$ BEGIN CREATE ROLE {READER}; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL.encode())


def state(url: str) -> list[Any]:
    """Return all of it, to be compared."""
    with psycopg.connect(url, autocommit=True) as connection:
        return [connection.execute(query.encode()).fetchall() for query in _STATE]


def is_empty(url: str) -> bool:
    """Tell whether a database has no table and no large object."""
    query = (
        "SELECT NOT EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384)"
        " AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchone() == (True,)

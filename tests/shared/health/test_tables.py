"""Checks of tables, indexes, vacuum and sequences, provoked on real tables."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from shared.health.result import Result
from tests.servers.postgres import Postgres
from tests.shared.db.watching import until
from tests.shared.health.conftest import Reporting


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of the role that owns the tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def rows_by(result: Result, key: str) -> dict[str, Any]:
    return {row[key]: row for row in result.rows}


def run(owner: psycopg.Connection[Any], result: Result) -> None:
    """Do what the result says."""
    for statement in result.sql:
        owner.execute(statement.encode())


def count_now(owner: psycopg.Connection[Any]) -> None:
    """Have this session's counts written, instead of within a second."""
    owner.execute("SELECT pg_stat_force_next_flush()")


def test_a_foreign_key_without_an_index(report_on: Reporting, database: str, owner: psycopg.Connection[Any]) -> None:
    owner.execute("""
        CREATE TABLE users (id int PRIMARY KEY, other int UNIQUE, UNIQUE (id, other));
        CREATE TABLE "Orders" (id int, "User" int CONSTRAINT "by" REFERENCES users, half int REFERENCES users (other),
            partial int REFERENCES users, one int, two int, FOREIGN KEY (one, two) REFERENCES users (id, other));
        CREATE INDEX ON "Orders" (half, id);
        CREATE INDEX ON "Orders" (partial) WHERE partial IS NOT NULL;
        CREATE INDEX ON "Orders" (two, one, id);
        CREATE INDEX ON "Orders" ("User") WHERE id > 5;
        CREATE INDEX ON "Orders" (id, "User");
        CREATE TABLE small (id int REFERENCES users);
        INSERT INTO "Orders" (id) SELECT generate_series(1, 1500);
    """)
    owner.execute('ANALYZE "Orders"')

    found = report_on(database)["missing_foreign_key_indexes"]
    assert (found.verdict, found.value) == ("warn", 1)
    assert set(rows_by(found, "constraint")) == {"by", "small_id_fkey"}
    assert found.sql == ('CREATE INDEX CONCURRENTLY ON public."Orders" ("User");',)

    run(owner, found)
    after = report_on(database)["missing_foreign_key_indexes"]
    assert (after.verdict, set(rows_by(after, "constraint"))) == ("ok", {"small_id_fkey"})


def test_an_invalid_index(report_on: Reporting, database: str, owner: psycopg.Connection[Any]) -> None:
    owner.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute("CREATE UNIQUE INDEX CONCURRENTLY once ON t (n)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute("REINDEX INDEX CONCURRENTLY once")

    found = report_on(database)["invalid_indexes"]
    assert (found.verdict, found.value) == ("warn", 2)
    assert set(rows_by(found, "index")) == {"public.once", "public.once_ccnew"}
    assert set(found.sql) == {
        "REINDEX INDEX CONCURRENTLY public.once;",
        "DROP INDEX CONCURRENTLY public.once_ccnew;",
    }

    owner.execute("DELETE FROM t")
    run(owner, found)
    assert report_on(database)["invalid_indexes"].verdict == "ok"


def test_an_index_that_is_being_built_is_not_broken(
    report_on: Reporting, database: str, postgres: Postgres, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("CREATE TABLE t (n int)")
    phase = "SELECT phase FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%'"
    with psycopg.connect(database) as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("INSERT INTO t VALUES (1)")
        building = pool.submit(owner.execute, "CREATE INDEX CONCURRENTLY ON t (n)")
        try:
            until(lambda: postgres.admin().execute(phase).fetchall())
            assert writer.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (1,)
            found = report_on(database)["invalid_indexes"]
        finally:
            writer.rollback()
        building.result(30)
    assert found.verdict == "ok"


def test_unused_and_duplicate_indexes(report_on: Reporting, database: str, owner: psycopg.Connection[Any]) -> None:
    owner.execute("""
        CREATE TABLE parents (id int PRIMARY KEY);
        CREATE TABLE t (id int PRIMARY KEY, n int, code text, parent int REFERENCES parents);
        INSERT INTO t (id, n, code) SELECT i, i, i::text FROM generate_series(1, 60000) AS i;
        CREATE INDEX idle ON t (n);
        CREATE INDEX parent ON t (parent, id);
        CREATE INDEX small ON t (n) WHERE n < 5;
        CREATE UNIQUE INDEX again ON t (id);
        CREATE INDEX lower_one ON t (lower(code)); CREATE  INDEX  lower_two  ON  t  (  lower( code ) );
        CREATE INDEX upper_one ON t (upper(code));
        CREATE INDEX down ON t (n DESC);
    """)
    found = report_on(database)
    assert found["unused_indexes"].verdict == "ok", "nobody has read the table yet"
    duplicates = rows_by(found["duplicate_indexes"], "index")
    assert {index: row["same_as"] for index, row in duplicates.items()} == {
        "public.again": "public.t_pkey",
        "public.lower_two": "public.lower_one",
    }

    owner.execute("SELECT count(*) FROM generate_series(1, 1001) CROSS JOIN LATERAL "
                  "(SELECT id FROM t WHERE t.id = generate_series OFFSET 0) AS one")  # fmt: skip
    count_now(owner)
    unused = report_on(database)["unused_indexes"]
    assert unused.verdict == "warn"
    names = set(rows_by(unused, "index"))
    assert {"public.idle", "public.down", "public.lower_one", "public.upper_one"} <= names
    assert names.isdisjoint({"public.t_pkey", "public.again", "public.parent", "public.small"})
    assert "DROP INDEX CONCURRENTLY public.idle;" in unused.sql

    run(owner, found["duplicate_indexes"])
    assert report_on(database)["duplicate_indexes"].verdict == "ok"


def test_dead_rows_where_autovacuum_is_off(report_on: Reporting, database: str, owner: psycopg.Connection[Any]) -> None:
    assert report_on(database)["autovacuum"].verdict == "ok"
    owner.execute("CREATE TABLE t (n int) WITH (autovacuum_enabled = FALSE)")
    owner.execute("INSERT INTO t SELECT generate_series(1, 20000)")
    owner.execute("UPDATE t SET n = n + 1")
    count_now(owner)

    found = report_on(database)
    assert (found["dead_rows"].verdict, found["dead_rows"].value) == ("warn", 50.0)
    assert found["dead_rows"].rows[0]["dead_rows"] == 20000
    assert found["autovacuum"].verdict == "warn"
    assert found["autovacuum"].sql == ("ALTER TABLE public.t RESET (autovacuum_enabled);",)
    assert found["table_statistics"].verdict == "warn", "it was never analyzed either"

    run(owner, found["dead_rows"])
    run(owner, found["autovacuum"])
    count_now(owner)
    after = report_on(database)
    assert {after[name].verdict for name in ("dead_rows", "autovacuum", "table_statistics")} == {"ok"}


def test_sequences_near_their_end(report_on: Reporting, database: str, owner: psycopg.Connection[Any]) -> None:
    owner.execute("""
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, old serial, short smallserial, wide bigserial);
        CREATE SEQUENCE narrow MAXVALUE 100;
        CREATE SEQUENCE round MAXVALUE 10 CYCLE;
        CREATE SEQUENCE wide_one;
        CREATE SEQUENCE down INCREMENT -1 MINVALUE -10;
        CREATE TABLE by_default (id int DEFAULT nextval('wide_one'));
    """)
    assert report_on(database)["sequences"].verdict == "ok"

    owner.execute("SELECT setval('t_id_seq', 1700000000), setval('t_old_seq', 2000000000), setval('narrow', 80)")
    owner.execute("SELECT setval('round', 10), setval('wide_one', 1900000000), setval('down', -8)")
    found = report_on(database)["sequences"]
    rows = rows_by(found, "sequence")
    assert (found.verdict, found.value) == ("fail", 93.1)
    assert {name: row["used_percent"] for name, row in rows.items() if row["used_percent"] > 1} == {
        "public.t_id_seq": 79.2, "public.t_old_seq": 93.1, "public.narrow": 80.0, "public.wide_one": 88.5,
        "public.down": 80.0,
    }  # fmt: skip
    assert (rows["public.wide_one"]["table"], rows["public.wide_one"]["type"]) == ("public.by_default", "integer")

    run(owner, found)
    assert report_on(database)["sequences"].verdict == "ok"
    assert owner.execute("SELECT nextval('narrow'), nextval('t_old_seq')").fetchone() == (81, 2000000001)


def test_a_sequence_of_somebody_else_s_is_told(
    report_on: Reporting, database: str, postgres: Postgres, owner: psycopg.Connection[Any]
) -> None:
    name = database.rpartition("/")[2]
    with psycopg.connect(postgres.admin_url(name), autocommit=True) as admin:
        admin.execute("CREATE SEQUENCE secret AS int; SELECT setval('secret', 2000000000)")
        hidden = report_on(database)["sequences"]
        assert (hidden.verdict, hidden.sql) == ("ok", ('GRANT SELECT ON SEQUENCE public.secret TO "app";',))
        assert "Not readable: 1 sequence." in hidden.summary
        run(admin, hidden)
        assert report_on(database)["sequences"].verdict == "fail"


def test_sizes_and_counts_of_the_tables(report_on: Reporting, database: str, owner: psycopg.Connection[Any]) -> None:
    owner.execute("CREATE TABLE large (id int PRIMARY KEY, text text); CREATE TABLE empty (id int)")
    owner.execute("INSERT INTO large SELECT i, repeat('x', 200) FROM generate_series(1, 5000) AS i")
    count_now(owner)
    owner.execute("VACUUM ANALYZE large")

    report = report_on(database)
    (size,) = owner.execute("SELECT pg_total_relation_size('large')").fetchall()[0]
    largest = report["largest_tables"]
    assert (largest.value, largest.rows[0]["table"], largest.rows[0]["estimated_rows"]) == (size, "public.large", 5000)
    assert 0 < largest.rows[0]["indexes_bytes"] < size
    counts = rows_by(report["table_statistics"], "table")
    assert (counts["public.large"]["inserted"], counts["public.empty"]["inserted"]) == (5000, 0)
    assert isinstance(report["database_size"].value, int)
    assert report["database_size"].value > size


def test_the_cache_hit_ratio(
    report_on: Reporting, database: str, postgres: Postgres, owner: psycopg.Connection[Any]
) -> None:
    assert report_on(database)["cache_hit_ratio"].value is None
    owner.execute("CREATE TABLE t (n int)")
    owner.execute("INSERT INTO t VALUES (1)")
    owner.execute("SELECT count(*) FROM generate_series(1, 110000) CROSS JOIN LATERAL "
                  "(SELECT n FROM t WHERE generate_series > 0 OFFSET 0) AS one")  # fmt: skip
    count_now(owner)
    found = report_on(database)["cache_hit_ratio"]
    assert isinstance(found.value, float)
    assert found.value > 95
    assert found.verdict == "ok"


def test_a_table_that_a_migration_holds_does_not_stop_the_checks(
    report_on: Reporting, database: str, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("CREATE TABLE held (id int PRIMARY KEY, code text, a int, b int)")
    owner.execute("CREATE INDEX ON held (lower(code)); CREATE INDEX ON held (lower(code)); CREATE INDEX ON held (a)")
    owner.execute("INSERT INTO held (id) SELECT generate_series(1, 5000)")
    count_now(owner)
    with psycopg.connect(database) as migration:
        migration.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        report = report_on(database)
        migration.rollback()
    assert {result.name for result in report.results if result.verdict == "unknown"} <= {
        "slow_statements", "duplicate_indexes",
    }  # fmt: skip
    assert "public.held" in rows_by(report["largest_tables"], "table")


def test_the_schema_behind_equal_and_ahead(report_on: Reporting, migrated_database: str, database: str) -> None:
    assert (report_on(database)["schema"].value, report_on(database)["schema"].verdict) == ("behind", "fail")
    assert (report_on(migrated_database)["schema"].value, report_on(migrated_database)["schema"].verdict) == (
        "equal", "ok",
    )  # fmt: skip
    with psycopg.connect(migrated_database, autocommit=True) as owner:
        for version, value, verdict in (("20200101000000", "behind", "fail"), ("29990101000000", "ahead", "ok")):
            owner.execute("UPDATE alembic_version SET version_num = %s", [version])
            found = report_on(migrated_database)["schema"]
            assert (found.value, found.verdict, found.rows[0]["database"]) == (value, verdict, version)

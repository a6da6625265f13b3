"""Performance indexes: built in production, repaired, reported, never dropped while they are valid."""

import re
from collections.abc import Callable

import psycopg
import pytest

from migrations import indexes, runner
from migrations.connection import connect
from shared.db.performance_indexes import INDEXES, NAMES
from shared.db.schema import metadata
from shared.errors import MigrationError
from tests.migrations import catalog
from tests.migrations.conftest import ROOT, Project
from tests.migrations.others import Run, looking, transaction, until

NAME, TABLE = INDEXES[0].name, INDEXES[0].table


@pytest.fixture
def migrated(migrated_database: str, use: Callable[..., None]) -> str:
    """Point DATABASE_URL at a database with all migrations and without performance indexes."""
    use(DATABASE_URL=migrated_database, APP_ENV="test")
    return migrated_database


def built(url: str) -> dict[str, bool]:
    """Give the performance indexes that are there, and whether each is valid."""
    with psycopg.connect(url) as connection:
        query = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname = ANY (%s)"
        return dict(connection.execute(query, [list(NAMES)]).fetchall())


def build(said: list[str]) -> list[str]:
    with connect() as guard:
        return indexes.build(guard, report=said.append, interval=0.02)


def remarks() -> list[str]:
    with connect() as guard:
        return indexes.remarks(guard)


def leave_invalid(url: str) -> None:
    """Leave the first index as an interrupted build does."""
    with transaction(url, f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE"), psycopg.connect(url, autocommit=True) as other:
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(INDEXES[0].statement.encode())
    assert built(url)[NAME] is False


def test_they_are_built_as_declared_on_each_version(any_url: str, said: list[str]) -> None:
    """What pg_get_indexdef shows is what is compared, so it must read the same on each."""
    runner.deploy(report=said.append)

    assert build(said) == [index.name for index in INDEXES]

    assert built(any_url) == dict.fromkeys(NAMES, True)
    assert remarks() == []
    assert build(said) == []


def test_each_says_why_and_since_when(migrated: str, said: list[str]) -> None:
    build(said)

    comments = catalog.rows(migrated, "SELECT obj_description(oid) FROM pg_class WHERE relname LIKE '%due_idx'")
    assert str(comments[0][0]).startswith(f"{INDEXES[0].why} Performance index, built on 20")


def test_none_repeats_what_the_schema_has() -> None:
    assert NAMES.isdisjoint(str(index.name) for table in metadata.tables.values() for index in table.indexes)
    assert len(NAMES) == len(INDEXES)


def test_the_docs_name_each() -> None:
    page = (ROOT / "docs" / "MIGRATION_SAFETY.md").read_text("utf-8")

    assert re.findall(r"^\| `(\w+_idx)`", page, re.MULTILINE) == [index.name for index in INDEXES]
    assert f"no query has used for {indexes.UNUSED_AFTER} days (tables below {indexes.UNUSED_ABOVE >> 20} MiB" in page


def test_an_invalid_one_is_built_anew(migrated: str, said: list[str]) -> None:
    leave_invalid(migrated)
    with connect() as guard:
        assert NAME in indexes.missing(guard)

    build(said)

    assert built(migrated) == dict.fromkeys(NAMES, True)
    assert any(line.startswith(f"Dropping the INVALID index public.{NAME}") for line in said)


def test_another_one_of_that_name_is_reported_and_left_alone(migrated: str, said: list[str]) -> None:
    catalog.rows(migrated, "CREATE INDEX subscriptions_due_idx ON subscriptions (canceled_at)")

    build(said)

    (line,) = remarks()
    assert line.startswith(f"Warning: the index {NAME} is not as shared/db/performance_indexes.py declares it")
    assert "(canceled_at)" in line
    assert f"DROP INDEX CONCURRENTLY {NAME};" in line
    definition = "SELECT indexdef LIKE '%(canceled_at)' FROM pg_indexes WHERE indexname = 'subscriptions_due_idx'"
    assert catalog.rows(migrated, definition) == [(True,)]


def test_a_name_that_belongs_to_something_else_is_reported(migrated: str, said: list[str]) -> None:
    catalog.rows(migrated, "CREATE TABLE subscriptions_due_idx (x int)")

    build(said)

    assert remarks() == [f"Warning: {NAME} was to be a performance index, and is something else in this database."]


def test_a_table_that_is_not_there_needs_none(migrated: str, said: list[str]) -> None:
    catalog.rows(migrated, "DROP TABLE subscriptions")

    assert NAME not in build(said)

    assert remarks() == []


def test_a_column_that_is_not_there_is_told(migrated: str, said: list[str]) -> None:
    catalog.rows(migrated, "ALTER TABLE subscriptions RENAME current_period_end TO ends_at")

    with pytest.raises(
        MigrationError, match=f"The migrations are applied; .* {NAME} on {TABLE} failed: column"
    ) as caught:
        build(said)

    assert caught.value.sqlstate == "42703"
    assert "shared/db/performance_indexes.py" in caught.value.solutions[-1]


def test_those_that_no_query_uses_are_named(migrated: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    build(said)
    catalog.rows(migrated, "COMMENT ON INDEX subscriptions_due_idx IS 'Performance index, built on 2020-01-01'")
    assert remarks() == []  # of a small table no index is used

    monkeypatch.setattr(indexes, "UNUSED_ABOVE", 0)

    (line,) = remarks()  # the other one is new
    assert line.startswith(f"No query has used the performance index {NAME} on {TABLE} for 30 days")
    assert built(migrated) == dict.fromkeys(NAMES, True)


def test_other_invalid_indexes_are_named_with_what_removes_them(migrated: str) -> None:
    with psycopg.connect(migrated, autocommit=True) as other:
        other.execute("SET lock_timeout = '50ms'")
        with transaction(migrated, "LOCK TABLE users IN ROW EXCLUSIVE MODE"):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("CREATE INDEX CONCURRENTLY mine ON users (role)")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("REINDEX INDEX CONCURRENTLY users_pkey")

    assert remarks() == [
        "Warning: the index public.mine on users is INVALID: no query uses it, every write pays for it. "
        "REINDEX INDEX CONCURRENTLY public.mine; or DROP INDEX CONCURRENTLY public.mine;",
        "Warning: public.users_pkey_ccnew on users is what an interrupted REINDEX CONCURRENTLY left: "
        "DROP INDEX CONCURRENTLY public.users_pkey_ccnew;",
    ]


def test_neither_writers_nor_the_timeout_are_in_the_way_and_the_phases_are_told(
    migrated: str, use: Callable[..., None], said: list[str]
) -> None:
    use(MIGRATION_LOCK_TIMEOUT="0.1")
    with looking(migrated) as connection:
        with transaction(migrated, "LOCK TABLE subscriptions IN ROW EXCLUSIVE MODE") as writer:
            run = Run(lambda: build(said))
            until(lambda: any(line.startswith("Waiting for a lock held by") for line in said), "the waiting")
            assert f"pid {writer.info.backend_pid} " in next(line for line in said if line.startswith("Waiting"))
            connection.execute("SET lock_timeout = '5s'; UPDATE subscriptions SET status = status")
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > '0.3 s'"
            until(lambda: connection.execute(waits).fetchone(), "thrice the timeout")
        run.end()

    assert built(migrated) == dict.fromkeys(NAMES, True)
    assert any(line.startswith(f"Building {NAME}: waiting for writers before build") for line in said)


# -- in a deploy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["test", "production"])
def test_a_deploy_builds_them_in_production_only(
    url: str, use: Callable[..., None], said: list[str], environment: str
) -> None:
    use(APP_ENV=environment, ADMIN_INITIAL_PASSWORD="long enough to do")

    runner.deploy(report=said.append)

    assert built(url) == ({} if environment == "test" else dict.fromkeys(NAMES, True))
    said.clear()
    runner.deploy(report=said.append)
    assert said == ["Nothing to migrate"]


def test_nothing_pending_means_valid_indexes_too(url: str, use: Callable[..., None], said: list[str]) -> None:
    use(APP_ENV="production", ADMIN_INITIAL_PASSWORD="long enough to do")
    runner.deploy(report=said.append)
    catalog.rows(url, "DROP INDEX subscriptions_due_idx")
    leave_invalid(url)

    runner.deploy(report=said.append)

    assert built(url) == dict.fromkeys(NAMES, True)


def test_two_deploys_at_once_build_them_once(url: str, project: Project) -> None:
    production = {"APP_ENV": "production", "ADMIN_INITIAL_PASSWORD": "long enough to do"}
    processes = [project.start("migrations", "deploy", **production) for _ in range(2)]

    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "".join(outputs).count(f"Building the performance index {NAME}") == 1
    assert built(url) == dict.fromkeys(NAMES, True)


def test_alembic_check_does_not_miss_them_in_the_metadata(url: str, use: Callable[..., None], project: Project) -> None:
    use(APP_ENV="production", ADMIN_INITIAL_PASSWORD="long enough to do")
    runner.deploy(report=lambda _: None)

    done = project.run("alembic", "check")

    assert done.returncode == 0, done.stdout + done.stderr

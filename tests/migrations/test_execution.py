"""Files outside a transaction: what took effect is not done twice, and an interrupted index is built anew."""

import signal
from collections.abc import Callable

import psycopg
import pytest

from migrations import runner
from migrations.statements import split
from shared.errors import HistoryMismatch, MigrationError
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project
from tests.migrations.others import Run, looking, transaction, until, until_line, upgrade

NONE = "-- transaction: none"
FIRST = "20260101000000_a"


@pytest.fixture(autouse=True)
def short_lock_timeout(use: Callable[..., None]) -> None:
    use(MIGRATION_LOCK_TIMEOUT="0.2")


def again(folder: Folder, up: str) -> None:
    """Write the first file anew."""
    folder.add(FIRST, up, header=NONE, parent="none")


def index(url: str, name: str = "i") -> list[tuple[object, ...]]:
    """Give whether an index is unique and valid."""
    with psycopg.connect(url) as connection:
        query = "SELECT indisunique, indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
        return connection.execute(query, [name]).fetchall()


def leave_invalid(url: str, name: str = "i") -> None:
    """Let a concurrent build fail in psql, say: it leaves its index."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (x int)")
        connection.execute("INSERT INTO t VALUES (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON t (x)".encode())
        connection.execute("TRUNCATE t")
    assert index(url, name) == [(True, False)]


# -- going on -------------------------------------------------------------------------------------------------------


def test_the_next_run_goes_on_behind_what_took_effect(url: str, folder: Folder, said: list[str]) -> None:
    done = "CREATE TABLE log (x text);\nSET my.word = 'once';\nINSERT INTO log VALUES ('first');\n"
    again(folder, done + "SELECT 1/0;\nINSERT INTO log VALUES ('last');")
    with pytest.raises(MigrationError, match="3 of its 5 statements have taken effect for good; it does not"):
        upgrade(folder.path, said.append)

    # The statement that failed may be mended; a setting is of the session, so it is made again.
    again(folder, done + "INSERT INTO log VALUES (current_setting('my.word'));\nINSERT INTO log VALUES ('last');")
    upgrade(folder.path, said.append)

    assert catalog.rows(url, "SELECT x FROM log") == [("first",), ("once",), ("last",)]
    assert f"{FIRST}.sql: going on behind the first 3 of its statements" in said
    assert catalog.revision(url) == FIRST[:14]


def test_what_took_effect_cannot_be_edited(url: str, folder: Folder, said: list[str]) -> None:
    again(folder, "CREATE TABLE log (x text);\nSELECT 1/0;")
    with pytest.raises(MigrationError):
        upgrade(folder.path, said.append)

    again(folder, "CREATE TABLE other (x text);\nSELECT 1;")
    with pytest.raises(HistoryMismatch, match="was changed since"):
        upgrade(folder.path, said.append)

    assert catalog.tables(url) == ["alembic_version", "log"]


def test_a_statement_and_its_note_are_kept_together(url: str, folder: Folder, said: list[str]) -> None:
    """Were the note written afterwards, a runner killed in between would do the statement twice."""
    catalog.rows(url, "CREATE TABLE log (x int)")
    again(folder, "INSERT INTO log VALUES (1);")
    with looking(url) as connection:
        upgrade(Folder(folder.path.with_name("none")).add(FIRST).parent, said.append)
        connection.execute("DELETE FROM alembic_version")
        with transaction(url, "LOCK TABLE migration_ledger IN EXCLUSIVE MODE"):
            run = Run(lambda: upgrade(folder.path, said.append))
            until(lambda: any("Nobody waits behind us" in line for line in said), "the first try's end")
            assert connection.execute("SELECT count(*) FROM log").fetchone() == (0,)
        run.end()
        assert connection.execute("SELECT count(*) FROM log").fetchone() == (1,)


def test_killed_in_its_second_statement_it_goes_on_there(url: str, project: Project, said: list[str]) -> None:
    runner.deploy(report=said.append)
    path = project.versions.add(
        "20270101000000_slow",
        "CREATE TABLE log (x int);\nINSERT INTO log VALUES (1);\nSELECT pg_sleep(600);",
        header=NONE,
    )
    process = project.start("migrations", "deploy")
    with looking(url) as connection:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        until(lambda: connection.execute(sleeping).fetchone(), "the slow statement")
        process.kill()
        process.communicate()
        until(lambda: not connection.execute(sleeping).fetchone(), "its end", seconds=15)
    path.write_text(path.read_text().replace("pg_sleep(600)", "2"))

    done = project.run("migrations", "deploy")

    assert done.returncode == 0, done.stderr
    assert "going on behind the first 2 of its statements" in done.stdout
    assert catalog.rows(url, "SELECT count(*) FROM log") == [(1,)]


def test_a_way_back_begins_again(url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(url, "CREATE TABLE log (x int)")
    folder.add(FIRST, "SELECT 1;", "INSERT INTO log VALUES (1);\nSELECT 1/(2 - count(*)) FROM log;", header=NONE)
    runner.deploy(report=said.append, directory=folder.path)
    catalog.rows(url, "INSERT INTO log VALUES (1)")

    with pytest.raises(MigrationError, match="1 of its 2 statements have taken effect for good; it still"):
        runner.downgrade(report=said.append, directory=folder.path)
    runner.downgrade(report=said.append, directory=folder.path)

    assert catalog.rows(url, "SELECT count(*) FROM log") == [(3,)]
    assert catalog.revision(url) is None


def test_settings_of_a_file_end_with_it(url: str, folder: Folder, said: list[str]) -> None:
    """What pg_dump writes begins so; neither tables nor an end to waiting would be found."""
    pg_dump = "SET lock_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n"
    folder.add(FIRST, f"{pg_dump}CREATE TABLE public.a (x int);")
    folder.add("20260102000000_b", "SET search_path = pg_catalog;\nCREATE TABLE public.b (x int);", header=NONE)
    folder.add("20260103000000_c", "CREATE TABLE c AS SELECT current_setting('lock_timeout') AS x;")

    upgrade(folder.path, said.append)

    assert catalog.tables(url) == ["a", "alembic_version", "b", "c"]
    assert catalog.rows(url, "SELECT x FROM c") == [("200ms",)]


def test_notices_are_shown(url: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "DO $$ BEGIN RAISE NOTICE 'half of it'; RAISE DEBUG 'no'; END $$;\nDROP TABLE IF EXISTS gone;")

    upgrade(folder.path, said.append)

    assert said[:2] == [
        f"{FIRST}.sql: NOTICE: half of it",
        f'{FIRST}.sql: NOTICE: table "gone" does not exist, skipping',
    ]


# -- backfills ------------------------------------------------------------------------------------------------------

BACKFILL = """
-- repeat until no rows
UPDATE t SET y = 10 / (x - 350) WHERE x IN (SELECT x FROM t WHERE y IS NULL ORDER BY x LIMIT 100);
"""


def test_a_backfill_goes_on_where_it_stopped(
    url: str, folder: Folder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.execution.EVERY", 0.0)
    catalog.rows(url, "CREATE TABLE t AS SELECT x, NULL::int AS y FROM generate_series(1, 1000) AS x")
    again(folder, BACKFILL)
    with pytest.raises(MigrationError, match="none of its 1 statements has taken effect"):
        upgrade(folder.path, said.append)
    assert catalog.rows(url, "SELECT count(y) FROM t") == [(300,)]
    assert said == [f"{FIRST}.sql, line 6: {rows} rows so far" for rows in (100, 200, 300)]

    catalog.rows(url, "UPDATE t SET y = 0 WHERE x = 350")
    upgrade(folder.path, said.append)

    assert catalog.rows(url, "SELECT count(*) - count(y) FROM t") == [(0,)]
    assert f"{FIRST}.sql, line 6: 699 rows in all" in said


def test_each_batch_is_a_transaction(url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(url, "CREATE TABLE t AS SELECT x, NULL::xid8 AS y FROM generate_series(1, 300) AS x")
    again(
        folder,
        "-- repeat until no rows\nWITH batch AS (SELECT x FROM t WHERE y IS NULL LIMIT 100)\n"
        "UPDATE t SET y = pg_current_xact_id() FROM batch WHERE t.x = batch.x;",
    )

    upgrade(folder.path, said.append)

    assert catalog.rows(url, "SELECT count(DISTINCT y) FROM t") == [(3,)]


def test_what_would_never_end_is_refused(url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(url, "CREATE TABLE t AS SELECT 1 AS x")
    again(
        folder,
        "-- repeat until no rows\nWITH done AS (UPDATE t SET x = 2 WHERE x = 1 RETURNING 1) SELECT count(*) FROM done;",
    )

    with pytest.raises(MigrationError, match="needs a statement that itself changes rows"):
        upgrade(folder.path, said.append)


# -- concurrent indexes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clause", ["", "IF NOT EXISTS "])
def test_an_invalid_index_is_built_anew(any_url: str, folder: Folder, said: list[str], clause: str) -> None:
    leave_invalid(any_url)
    again(folder, f"CREATE UNIQUE INDEX CONCURRENTLY {clause}i ON t (x);")

    upgrade(folder.path, said.append)

    assert index(any_url) == [(True, True)]
    assert said[0] == "Dropping the INVALID index public.i, which a build that failed has left"


def test_a_valid_index_is_left_alone(url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(url, 'CREATE SCHEMA "My"; CREATE TABLE "My"."T" ("X y" int); CREATE INDEX "I i" ON "My"."T" ("X y")')
    before = catalog.rows(url, """SELECT '"My"."I i"'::regclass::oid""")
    again(folder, 'CREATE INDEX CONCURRENTLY "I i" ON ONLY "My"."T" ("X y");')

    upgrade(folder.path, said.append)

    assert said[0] == (
        '"My"."I i" is there and valid, it is not built again: CREATE INDEX "I i" ON "My"."T" USING btree ("X y")'
    )
    assert catalog.rows(url, """SELECT '"My"."I i"'::regclass::oid""") == before


def test_one_that_is_not_unique_is_no_stand_in_for_a_unique_one(url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(url, "CREATE TABLE t (x int); CREATE INDEX i ON t (x)")
    again(folder, "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (x);")

    with pytest.raises(
        MigrationError, match=r"line 4\..*\n.*\nAn index of the name public.i is there, and it is not un"
    ):
        upgrade(folder.path, said.append)

    assert catalog.revision(url) is None


def test_a_name_that_belongs_to_something_else_fails(url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(url, "CREATE TABLE t (x int); CREATE TABLE i (x int)")
    again(folder, "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (x);")

    with pytest.raises(MigrationError, match="The index i on t is not there after it was built"):
        upgrade(folder.path, said.append)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_a_concurrent_build_the_next_run_builds_it_anew(
    url: str, project: Project, said: list[str], how: signal.Signals
) -> None:
    runner.deploy(report=said.append)
    project.versions.add("20270101000000_index", "CREATE INDEX CONCURRENTLY i ON users (role);", header=NONE)
    building = "SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%'"
    locked = (
        "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory' AND granted "
        "AND datname = current_database()"
    )
    with looking(url) as connection:
        with transaction(url, "UPDATE plans SET active = active", "LOCK TABLE users IN ROW EXCLUSIVE MODE") as who:
            process = project.start("migrations", "deploy")
            until(lambda: connection.execute(building).fetchone(), "the build")
            line = until_line(process, "Waiting for a lock")
            assert f"held by pid {who.info.backend_pid} " in line
            process.send_signal(how)
            output, _ = process.communicate()
            until(lambda: not connection.execute(locked).fetchone(), "the lock's end", seconds=15)
            until(lambda: not connection.execute(building).fetchone(), "the build's end", seconds=15)
        assert index(url) == [(False, False)]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted in 20270101000000_index.sql. It runs outside a transaction: none of its 1" in output

    done = project.run("migrations", "deploy")

    assert done.returncode == 0, done.stderr
    assert "Dropping the INVALID index public.i" in done.stdout
    assert index(url) == [(False, True)]


def test_while_somebody_else_builds_it_it_waits(url: str, folder: Folder, said: list[str]) -> None:
    """INVALID it is then, too, and not to be dropped."""
    catalog.rows(url, "CREATE TABLE t (x int)")
    again(folder, "CREATE INDEX CONCURRENTLY i ON t (x);")
    with looking(url) as connection, psycopg.connect(url, autocommit=True) as builder:
        building = "SELECT 1 FROM pg_stat_progress_create_index"
        with transaction(url, "LOCK TABLE t IN ROW EXCLUSIVE MODE"):
            other = Run(lambda: builder.execute("CREATE INDEX CONCURRENTLY i ON t (x)"))
            until(lambda: connection.execute(building).fetchone(), "the other build")
            run = Run(lambda: upgrade(folder.path, said.append))
            until(
                lambda: any("Another session builds the index public.i" in line for line in said), "its stepping back"
            )
            assert run.is_running
        run.end()
        other.end()
        assert index(url) == [(False, True)]
        assert any("public.i is there and valid" in line for line in said)


def test_the_phases_of_a_build_are_told(any_url: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(any_url, "CREATE TABLE t (x int)")
    again(folder, "CREATE INDEX CONCURRENTLY i ON t (x);")
    with transaction(any_url, "LOCK TABLE t IN ROW EXCLUSIVE MODE"):
        run = Run(lambda: upgrade(folder.path, said.append))
        until(lambda: any(line.startswith("Building i: ") for line in said), "the progress")
    run.end()

    assert "Building i: waiting for writers before build, 0 of 1 transactions have ended" in said


def test_a_concurrent_build_is_not_given_up_for_a_lock_timeout(url: str, folder: Folder, said: list[str]) -> None:
    """Nobody queues behind it, and a timeout would leave it INVALID. What comes behind has one again."""
    catalog.rows(url, "CREATE TABLE t (x int); CREATE TABLE log (x text)")
    again(folder, "CREATE INDEX CONCURRENTLY i ON t (x);\nINSERT INTO log VALUES (current_setting('lock_timeout'));")
    with looking(url) as connection:
        with transaction(url, "LOCK TABLE t IN ROW EXCLUSIVE MODE"):
            run = Run(lambda: upgrade(folder.path, said.append))
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > '0.4 s'"
            until(lambda: connection.execute(waits).fetchone(), "twice the timeout")
        run.end()

    assert not any("failed" in line for line in said)
    assert catalog.rows(url, "SELECT x FROM log") == [("200ms",)]


def test_thousands_of_statements_are_split_once(
    url: str, folder: Folder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add(FIRST, "CREATE TABLE t (x int);\n" + "INSERT INTO t VALUES (1);\n" * 2000)
    text = folder.path.joinpath(f"{FIRST}.sql").read_text()
    from migrations import statements

    statements._split.cache_clear()
    runner.deploy(report=said.append, directory=folder.path)

    assert text.count("INSERT") == 2000
    assert catalog.rows(url, "SELECT count(*) FROM t") == [(2000,)]
    assert statements._split.cache_info().misses == 2  # up and down


def test_lines_stay_right_in_long_files() -> None:
    found = split("".join(f"SELECT\n{number};\n\n" for number in range(1000)), first_line=7)

    assert [statement.line for statement in found] == [7 + 3 * number for number in range(1000)]

"""Rehearsing on the real database: what is observed is right, nothing is left behind, and it has an end."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from migrations import files, guards, rehearsal
from migrations.rehearsal import Observation, rehearse
from shared.errors import LockTimeout, MigrationError, Refused
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project
from tests.migrations.others import Run, is_waiting, looking, transaction, until, upgrade

FIRST = "20260101000000_a"
EXCLUSIVE = "ACCESS EXCLUSIVE: nobody reads or writes it meanwhile"


@pytest.fixture
def tables(url: str) -> str:
    """Make some tables with rows; gives the URL."""
    catalog.rows(
        url,
        "CREATE TABLE t (x int PRIMARY KEY, y text); INSERT INTO t SELECT x, 'y' FROM generate_series(1, 1000) AS x; "
        "CREATE TABLE u (x int); CREATE TABLE v (x int PRIMARY KEY); CREATE TABLE w AS TABLE t; "
        "CREATE TABLE y (x int); ANALYZE t",
    )
    return url


@pytest.fixture
def table(url: str) -> str:
    """Make a table with a row; gives the URL."""
    catalog.rows(url, "CREATE TABLE t (x int PRIMARY KEY); INSERT INTO t VALUES (1)")
    return url


def rehearsed(
    folder: Folder, said: list[str], *, seconds: float = 10.0, lock_timeout: float = 1.0
) -> Sequence[Observation]:
    pending = [files.parse(file.path) for file in files.scan(folder.path)]
    with guards.guarded(report=said.append) as guard:
        return rehearse(guard, pending, said.append, seconds=seconds, lock_timeout=lock_timeout)


def test_locks_rewrites_and_rows_are_observed(tables: str, folder: Folder, said: list[str]) -> None:
    folder.add(
        FIRST,
        """
        ALTER TABLE t ADD COLUMN z int DEFAULT 0;
        ALTER TABLE t ALTER COLUMN x TYPE bigint;
        CREATE INDEX ON u (x);
        CREATE TABLE z (x int REFERENCES v (x));
        DELETE FROM w WHERE x > 900;
        ALTER TABLE y SET (fillfactor = 70);
        CREATE INDEX ON y (x);
        SELECT x FROM y;
        """,
    )
    before = catalog.schema(tables), catalog.contents(tables)

    observed = rehearsed(folder, said)

    # A new column with a constant default is only noted; another type writes the table and its index anew.
    assert [(o.locks, o.rewrites, o.rows) for o in observed] == [
        ([f"t ({EXCLUSIVE})"], [], None),
        ([], ["table t (40 kB)", "index t_pkey (40 kB)"], None),
        (["u (SHARE: reads go on, writes wait)"], [], None),
        (["v (SHARE ROW EXCLUSIVE: reads go on, writes wait)"], [], None),
        (["w (ROW EXCLUSIVE)"], [], 100),
        (["y (SHARE UPDATE EXCLUSIVE: reads and writes go on)"], [], None),
        (["y (SHARE: reads go on, writes wait)"], [], None),
        ([], [], None),  # nothing that it did not hold already
    ]
    assert (catalog.schema(tables), catalog.contents(tables)) == before
    assert catalog.rows(tables, "SELECT to_regclass('alembic_version'), to_regclass('migration_ledger')") == [
        (None, None)
    ]


def test_nothing_that_the_files_make_counts_as_locked(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "CREATE TABLE v (x int);\nALTER TABLE v ALTER COLUMN x TYPE bigint;")

    observed = rehearsed(folder, said)

    assert [(o.locks, o.rewrites) for o in observed] == [([], []), ([], [])]
    assert said[-1].startswith("Rolled back after ")


def test_serializable_sessions_hold_no_other_locks(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "SELECT x FROM t;")
    with looking(table) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode())

    assert [o.locks for o in rehearsed(folder, said)] == [["t (ACCESS SHARE)"]]


def test_it_has_an_end(any_url: str, folder: Folder, said: list[str]) -> None:
    """The time that is left bounds each statement, whatever the file sets; 16 has no transaction_timeout besides."""
    catalog.rows(any_url, "CREATE TABLE t (x int)")
    folder.add(FIRST, "LOCK TABLE t;\nSET statement_timeout = 0;\nSELECT pg_sleep(600);\nDROP TABLE t;")

    observed = rehearsed(folder, said, seconds=0.5)

    assert [o.remark[:9] for o in observed] == ["", "", "cut after"]
    assert said[-1] == "The rehearsal is incomplete: what comes after was not looked at."
    assert catalog.rows(any_url, "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass") == [(0,)]


def test_a_client_that_hangs_is_ended_by_the_server(any_url: str, folder: Folder, said: list[str]) -> None:
    """Between two statements as well: what the rehearsal's session is told bounds it without us."""
    catalog.rows(any_url, "CREATE TABLE t (x int)")
    folder.add(FIRST, "LOCK TABLE t;")
    with looking(any_url) as connection:

        def is_there(query: str) -> bool:
            return connection.execute(query.encode()).fetchone() is not None

        session = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'db migrate --rehearse%'"
        locked = "SELECT 1 FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock'"

        def report(line: str) -> None:
            said.append(line)
            if line.startswith(f"{FIRST}.sql, line "):  # now the client does nothing, and holds the lock
                assert is_there(locked)
                until(lambda: not is_there(session), "the session's end")
                assert not is_there(locked)

        pending = [files.parse(folder.path / f"{FIRST}.sql")]
        with guards.guarded(report=said.append) as guard:
            rehearse(guard, pending, report, seconds=0.3)

    assert said[-1] == "The rehearsal is incomplete: what comes after was not looked at."


def test_who_blocks_it_is_named(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "ALTER TABLE t ADD COLUMN y int;")
    with transaction(table, "SELECT FROM t", application_name="report") as who:
        pid = who.info.backend_pid
        with pytest.raises(
            LockTimeout, match=rf"line 4: no lock within 0.2 s, blocked by pid {pid} \(report, "
        ) as caught:
            rehearsed(folder, said, lock_timeout=0.2)

    assert caught.value.exit_code == 7
    assert f"If it hangs, this ends it: SELECT pg_terminate_backend({pid});" in caught.value.solutions


def test_a_reader_is_served_when_the_rehearsal_gives_up(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "ALTER TABLE t ADD COLUMN y int;")
    with looking(table) as connection, transaction(table, "SELECT FROM t"):
        run = Run(lambda: rehearsed(folder, said, lock_timeout=0.2))
        until(lambda: is_waiting(connection), "its waiting")
        connection.execute("SET statement_timeout = '10s'")
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
        with pytest.raises(LockTimeout):
            run.end()


def test_what_cannot_run_in_a_transaction_is_skipped_and_named(tables: str, folder: Folder, said: list[str]) -> None:
    catalog.rows(
        tables,
        "CREATE TYPE mood AS ENUM ('ok'); CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
    )
    folder.add(
        FIRST,
        "CREATE INDEX CONCURRENTLY i ON t (y);\nVACUUM t;\nCALL p();\nALTER TYPE mood ADD VALUE 'sad';\n"
        "SELECT 'sad'::mood;\nALTER TABLE u ADD COLUMN y int;\n\n-- repeat until no rows\n"
        "UPDATE t SET y = 'z' WHERE x IN (SELECT x FROM t WHERE y = 'y' LIMIT 10);",
        header="-- transaction: none",
    )

    observed = rehearsed(folder, said)

    assert [o.remark for o in observed[:6]] == [
        "skipped: it cannot run in a transaction",
        "skipped: it cannot run in a transaction",
        "skipped: it ends transactions itself",
        "",
        "skipped: it uses an enum value that is not committed",
        "",
    ]
    assert observed[5].locks == [f"u ({EXCLUSIVE})"]
    assert observed[6].remark.endswith("for the first batch")
    assert observed[6].rows == 10


def test_what_would_fail_is_told(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "SELECT 1;\nALTER TABLE t ADD CHECK (x > 1);")

    with pytest.raises(MigrationError, match=r"_a\.sql would fail in line 5\. It was a rehearsal") as caught:
        rehearsed(folder, said)

    assert caught.value.sqlstate == "23514"


def test_what_may_only_miss_what_was_skipped_says_so(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "CREATE UNIQUE INDEX CONCURRENTLY i ON t (x);", header="-- transaction: none")
    folder.add("20260102000000_b", "ALTER TABLE t ADD CONSTRAINT i UNIQUE USING INDEX i;")

    with pytest.raises(MigrationError, match=r"_b\.sql would fail") as caught:
        rehearsed(folder, said)

    assert caught.value.solutions[0] == f"It may only miss what was skipped: {FIRST}.sql, line 4."


def test_what_commit_would_find_is_told(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(
        FIRST,
        "ALTER TABLE t ADD COLUMN y int REFERENCES t DEFERRABLE INITIALLY DEFERRED;\nUPDATE t SET y = 2;",
    )

    with pytest.raises(MigrationError, match="It would fail at COMMIT") as caught:
        rehearsed(folder, said)

    assert caught.value.sqlstate == "23503"


def test_search_path_ends_with_its_file(table: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "SELECT set_config('search_path', '', false);\nALTER TABLE public.t ALTER COLUMN x TYPE bigint;")
    folder.add("20260102000000_b", "ALTER TABLE t ADD COLUMN y int;")

    observed = rehearsed(folder, said)

    assert [o.locks for o in observed] == [[], [f"t ({EXCLUSIVE})"], []]
    assert [rewritten.split(" (")[0] for rewritten in observed[1].rewrites] == ["table t", "index t_pkey"]


def test_what_took_effect_already_is_not_rehearsed(url: str, folder: Folder, said: list[str]) -> None:
    folder.add(FIRST, "CREATE TABLE a (x int);\nSELECT 1/0;", header="-- transaction: none")
    with pytest.raises(MigrationError):
        upgrade(folder.path, said.append)
    folder.add(
        FIRST, "CREATE TABLE a (x int);\nALTER TABLE a ADD COLUMN y int;", header="-- transaction: none", parent="none"
    )
    said.clear()

    rehearsal.run(report=said.append, directory=folder.path)

    assert [line for line in said if line.startswith(FIRST)] == [
        f"{FIRST}.sql, line 5: ALTER TABLE a ADD COLUMN y int" + said[0].partition(" y int")[2]
    ]
    assert f"locks a ({EXCLUSIVE})" in said[0]


# -- the command ----------------------------------------------------------------------------------------------------


def test_production_is_asked_twice(url: str, folder: Folder, use: Callable[..., None], said: list[str]) -> None:
    use(APP_ENV="production")
    catalog.rows(url, "CREATE TABLE t (x int)")
    folder.add(FIRST, "CREATE TABLE v (x int);\nALTER TABLE v ADD COLUMN y int;\nALTER TABLE t ADD COLUMN y int;")

    with pytest.raises(Refused) as caught:
        rehearsal.run(report=said.append, directory=folder.path)

    assert caught.value.exit_code == 8
    assert "runs 3 statements of 1 files" in caught.value.message
    assert "Nobody reads or writes these while it lasts (ACCESS EXCLUSIVE): t" in caught.value.message
    assert caught.value.solutions == ("Rehearse all the same: db migrate --rehearse --force",)
    assert said == []

    rehearsal.run(report=said.append, directory=folder.path, force=True)
    assert said[-1].startswith("Rolled back after ")
    assert catalog.tables(url) == ["t"]


@pytest.mark.parametrize("files_pending", [True, False])
def test_other_databases_are_rehearsed_on_at_once(
    url: str, folder: Folder, said: list[str], tmp_path: Path, files_pending: bool
) -> None:
    if files_pending:
        folder.add(FIRST)

    rehearsal.run(report=said.append, directory=folder.path)

    assert said[-1].startswith("Rolled back after " if files_pending else "Nothing to rehearse")
    assert catalog.schema(url) == []


def test_the_command(url: str, project: Project) -> None:
    done = project.db("migrate", "--rehearse")

    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE users" in done.stdout
    assert catalog.schema(url) == []

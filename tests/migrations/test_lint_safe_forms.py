"""Every safe form that lint shows runs on a server, on tables with rows, and comes to what was asked for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import psycopg
import pytest
from psycopg import sql

from migrations import lint
from migrations.files import Migration
from tests.migrations.conftest import Folder
from tests.migrations.lint_cases import CASES, ROWS, WORLD, Case, migration, migrations_of
from tests.servers.postgres import Postgres

FLOOR = 16  # what runs on the oldest server runs on those after it
ROUNDS = 20  # of a backfill; more would mean that it never ends

# Rules whose safe form leaves behind what the statement itself would have left.
SAME = {
    *("add-foreign-key", "add-check", "add-unique", "add-primary-key", "add-exclusion", "set-not-null"),
    *("index-not-concurrent", "drop-index-not-concurrent", "drop-table", "drop-object", "reindex-not-concurrent"),
    *("several-tables-locked", "not-repeatable", "transaction-none-not-needed", "needs-no-transaction"),
}
OF_PARTITIONS = "CREATE INDEX e ON events (id);"  # those of the partitions are left to the writer

# What leaves columns, constraints, indexes and enum values as they were.
SHAPELESS = ("REINDEX", "VACUUM people;", "VACUUM teams;\nINSERT", "DROP FUNCTION")

_SHAPE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated::text, NULL
FROM pg_constraint WHERE connamespace = current_schema()::regnamespace AND contype <> 'n'
UNION ALL
SELECT 'index', i.indrelid::regclass::text, c.relname, pg_get_indexdef(c.oid), i.indisvalid::text, NULL
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = current_schema()::regnamespace
UNION ALL
SELECT 'value', t.typname, enumlabel, NULL, NULL, NULL
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typnamespace = current_schema()::regnamespace
ORDER BY 1, 2, 3, 4
"""

Connection = psycopg.Connection[tuple[object, ...]]
Tables = Callable[[], Connection]


@pytest.fixture(scope="module")
def url(postgres_of: Callable[[int], Postgres]) -> Iterator[str]:
    """Give one database for all of these tests; each works in schemas of its own."""
    server = postgres_of(FLOOR)
    with server.database() as name:
        yield server.url(name)


@pytest.fixture
def tables(url: str) -> Iterator[Tables]:
    """Give connections to the tables of WORLD with rows, each in a new schema."""
    opened: list[Connection] = []

    def make() -> Connection:
        schema = f"world_{len(opened)}"
        connection = psycopg.connect(url, autocommit=True, options=f"-c search_path={schema}")
        opened.append(connection)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(f"{WORLD}{ROWS}".encode())
        return connection

    yield make
    for number, connection in enumerate(opened):
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(f"world_{number}")))
        connection.close()


def apply(connection: Connection, migrations: list[Migration]) -> None:
    """Run files as the runner does: one transaction each, or statement by statement, backfills to their end."""
    for one in migrations:
        if one.transactional:
            with connection.transaction():
                for statement in one.up.statements:
                    connection.execute(statement.text.encode())
            continue
        for statement in one.up.statements:
            rounds = 0
            while connection.execute(statement.text.encode()).rowcount > 0 and statement.repeated:
                rounds += 1
                assert rounds < ROUNDS, f"no end: {statement.text}"


def shape(connection: Connection) -> list[tuple[str, ...]]:
    """List columns, constraints, indexes and enum values, without the name of the schema."""
    schema = f"{connection.execute('SELECT current_schema()').fetchall()[0][0]}."
    return [tuple(str(part).replace(schema, "") for part in row) for row in connection.execute(_SHAPE)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_safe_form_runs(case: Case, tables: Tables, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "asked")
    world = migration(folder, WORLD)
    asked = migration(folder, case.up, transactional=case.transactional)
    (finding,) = (finding for finding in lint.check([asked], before=[world]) if finding.rule == case.rule)
    connection = tables()
    before = shape(connection)
    if case.rule == "validate-with-add":  # its safe form is the second half
        connection.execute(asked.up.statements[0].text.encode())

    apply(connection, migrations_of(Folder(tmp_path / "safe"), finding.safe))

    if case.rule in SAME and case.up != OF_PARTITIONS and "add-column-required" not in case.also:
        plain = tables()
        apply(plain, [replace(asked, transactional=case.rule != "needs-no-transaction" and asked.transactional)])
        assert shape(connection) == shape(plain)
        assert (shape(plain) != before) is not case.up.startswith(SHAPELESS)


def test_a_replaced_column_follows_the_other_whichever_the_code_writes(tables: Tables, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "asked")
    world = migration(folder, WORLD)
    rename = migration(folder, "ALTER TABLE teams RENAME COLUMN name TO title;")
    (finding,) = lint.check([rename], before=[world])
    connection = tables()
    expand, backfill, contract = migrations_of(Folder(tmp_path / "safe"), finding.safe)
    apply(connection, [expand])

    old_code = "INSERT INTO teams (id, name) VALUES (11, 'old'); UPDATE teams SET name = 'older' WHERE id = 1"
    new_code = "INSERT INTO teams (id, title) VALUES (12, 'new'); UPDATE teams SET title = 'newer' WHERE id = 2"
    connection.execute(f"{old_code}; {new_code}; UPDATE teams SET id = 33 WHERE id = 3".encode())

    def rows() -> list[tuple[object, ...]]:
        return connection.execute("SELECT id, name, title FROM teams ORDER BY id").fetchall()

    written = [(1, "older", "older"), (2, "newer", "newer")]
    added = [(11, "old", "old"), (12, "new", "new"), (33, "team 3", "team 3")]
    assert rows() == [*written, (4, "team 4", None), (5, "team 5", None), *added]
    apply(connection, [backfill])
    assert rows() == [*written, (4, "team 4", "team 4"), (5, "team 5", "team 5"), *added]
    apply(connection, [contract])
    assert [name for (name,) in connection.execute("SELECT title FROM teams ORDER BY id LIMIT 1")] == ["older"]


def test_a_renamed_table_is_written_to_under_its_old_name(tables: Tables, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "asked")
    world = migration(folder, WORLD)
    rename = migration(folder, "ALTER TABLE teams RENAME TO groups;")
    (finding,) = lint.check([rename], before=[world])
    connection = tables()
    apply(connection, migrations_of(Folder(tmp_path / "safe"), finding.safe)[:1])

    connection.execute("INSERT INTO teams VALUES (7, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y'")
    connection.execute("UPDATE teams SET name = 'z' WHERE id = 7")
    connection.execute("DELETE FROM teams WHERE id < 7")

    assert connection.execute("SELECT * FROM groups").fetchall() == [(7, "z")]


def test_a_backfill_leaves_alone_what_somebody_changes_meanwhile(tables: Tables, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "asked")
    world = migration(folder, WORLD)
    (finding,) = lint.check([migration(folder, "UPDATE teams SET name = 'none' WHERE name IS NULL;")], before=[world])
    filling = tables()
    filling.execute("UPDATE teams SET name = NULL")
    schema = filling.execute("SELECT current_schema()").fetchall()[0][0]

    with psycopg.connect(filling.info.dsn, password=filling.info.password, options=f"-c search_path={schema}") as other:
        other.execute("UPDATE teams SET name = 'mine' WHERE id = 3")
        backfill = Thread(target=apply, args=(filling, migrations_of(Folder(tmp_path / "safe"), finding.safe)))
        backfill.start()
        blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        while not other.execute(blocked, [filling.info.backend_pid]).fetchall()[0][0]:
            assert backfill.is_alive()
        other.commit()
        backfill.join()

    rows = filling.execute("SELECT id, name FROM teams ORDER BY id").fetchall()
    assert rows == [(1, "none"), (2, "none"), (3, "mine"), (4, "none"), (5, "none")]

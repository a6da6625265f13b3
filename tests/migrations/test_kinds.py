"""What a statement is as far as running it goes, and where it cannot stand."""

import pytest

from migrations import files, kinds
from migrations.statements import Statement, split
from shared.errors import MigrationError
from tests.migrations.conftest import Folder

NONE = "-- transaction: none"


def one(text: str) -> Statement:
    (statement,) = split(f"{text};")
    return statement


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", ("i", "t", False)),
        ("create unique index concurrently if not exists i on only s.t using gin (a)", ("i", "s.t", True)),
        ('CREATE INDEX /* why */ CONCURRENTLY "I ""i""" -- so\n ON "S"."T"(a)', ('"I ""i"""', '"S"."T"', False)),
        ('CREATE INDEX CONCURRENTLY "on" ON "only" (a)', ('"on"', '"only"', False)),
        ("CREATE INDEX CONCURRENTLY ON t (a)", None),
        ('CREATE INDEX CONCURRENTLY U&"\\0061" ON t (a)', None),
        ("CREATE INDEX CONCURRENTLY", None),
        ("CREATE INDEX CONCURRENTLY i ON", None),
    ],
)
def test_name_and_table_of_a_concurrent_index_are_read(text: str, index: tuple[str, str, bool] | None) -> None:
    assert kinds.is_concurrent_build(one(text))
    assert kinds.read(one(text)) == index


@pytest.mark.parametrize(
    "text", ["CREATE INDEX i ON t (a)", "DROP INDEX CONCURRENTLY i", 'CREATE INDEX "CONCURRENTLY" ON t (a)']
)
def test_other_statements_build_nothing_concurrently(text: str) -> None:
    assert not kinds.is_concurrent_build(one(text))


@pytest.mark.parametrize(
    ("text", "unnoticed", "shares"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a)", True, False),
        ("DROP INDEX CONCURRENTLY i", True, False),
        ("REINDEX (CONCURRENTLY, VERBOSE) TABLE t", True, False),
        ("ALTER TABLE some.parent DETACH PARTITION some.child CONCURRENTLY", True, False),
        ("VACUUM (ANALYZE) t", True, False),
        # These lock everybody out, so that everybody queues behind them.
        ("VACUUM FULL t", False, False),
        ("VACUUM (FULL) t", False, False),
        ("ALTER TABLE parent DETACH PARTITION child", False, True),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", False, False),
        ("ALTER TABLE t ADD COLUMN a int", False, True),
        ("ALTER TYPE mood ADD VALUE 'sad'", False, True),
        ("INSERT INTO t VALUES (1)", False, True),
        ("SELECT f()", False, True),
        # Never in a transaction, or they end it themselves.
        ("CREATE DATABASE d", False, False),
        ("ALTER SYSTEM SET work_mem = '8MB'", False, False),
        ("DROP SUBSCRIPTION s", False, False),
        ("CALL p()", False, False),
        ("DO $$ BEGIN COMMIT; END $$", False, False),
        ("SET lock_timeout = 0", False, False),
        ("REINDEX DATABASE d", False, False),
    ],
)
def test_how_a_statement_waits_and_whether_it_shares_a_transaction(text: str, unnoticed: bool, shares: bool) -> None:
    assert kinds.waits_unnoticed(one(text)) is unnoticed
    assert kinds.can_share_a_transaction(one(text)) is shares


@pytest.mark.parametrize(
    ("up", "header", "line", "message"),
    [
        ("CREATE INDEX CONCURRENTLY ON t (a);", NONE, 4, "CREATE INDEX CONCURRENTLY without a name"),
        ("-- repeat until no rows\nDELETE FROM t;", "", 5, "in a file that is one transaction"),
        ("-- repeat until no rows\nSELECT f();", NONE, 5, "before a statement that changes no rows"),
        (
            "\n-- repeat until no rows\nWITH a AS (SELECT 1) SELECT 1;",
            NONE,
            6,
            "before a statement that changes no rows",
        ),
        ("-- repeat until no rows\nUPDATE t SET a = 1;", NONE, 5, "before an UPDATE without WHERE"),
    ],
)
def test_what_cannot_stand_in_a_file_is_named(folder: Folder, up: str, header: str, line: int, message: str) -> None:
    path = folder.add("20260101000000_a", up, header=header)

    with pytest.raises(MigrationError, match=f"20260101000000_a.sql, line {line}: .*{message}"):
        files.parse(path)


def test_only_the_statement_behind_the_comment_is_repeated() -> None:
    found = split(
        "SELECT 1;\n--  repeat until no rows\n-- in batches\nDELETE FROM t /* x */ WHERE a;\n"
        "-- repeat until no rows\nDELETE FROM t WHERE b;\nSELECT 2 -- repeat until no rows\n;"
    )

    assert [statement.repeated for statement in found] == [False, True, True, False]

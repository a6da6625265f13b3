"""What a migration file must look like, and the chain that they form."""

import pytest

from migrations import files
from migrations.files import VERSIONS
from shared.errors import MigrationError
from tests.migrations.conftest import Folder

GOOD = "-- Why.\n-- parent: none\nSELECT 1;\n-- down\nSELECT 2;\n"


def test_the_repository_s_own_files_are_one_chain() -> None:
    chain = files.chain()

    assert [migration.parent for migration in chain] == [None, *(m.revision for m in chain[:-1])]
    assert all(migration.down.statements for migration in chain)
    assert len(chain) == len(list(VERSIONS.glob("*.sql")))


def test_a_file_is_read_in_its_parts(folder: Folder) -> None:
    text = (
        "\ufeff\n-- Add x: for y.\n--   Second line.\n--parent:  20260101000000 \r\n-- transaction: none\n\n"
        "-- about t\nSELECT '\n-- down\n';\n  -- down\t\nSELECT 2;\n"
    )
    migration = files.parse(folder.write("20260102000000_add_x", text))

    assert migration.revision == "20260102000000"
    assert migration.parent == "20260101000000"
    assert migration.description == "Add x: for y. Second line."
    assert not migration.transactional
    assert [(s.text, s.line) for s in migration.up.statements] == [("SELECT '\n-- down\n'", 8)]
    assert [(s.text, s.line) for s in migration.down.statements] == [("SELECT 2", 12)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("-- Why.\n", ""), r"line 1: the file does not start with a comment"),
        ("SELECT 1;\n" + GOOD, r"line 1: the file does not start with a comment"),
        (GOOD.replace("-- parent: none\n", ""), "no line `-- parent:`"),
        (GOOD.replace("none", "yesterday"), "no line `-- parent:`"),
        (GOOD.replace("-- down\n", ""), "has no line `-- down`"),
        (
            GOOD.replace("SELECT 1;", "SELECT $$\n-- down\n$$;").replace("-- down\nSELECT 2;\n", ""),
            "has no line `-- down`",
        ),
        (GOOD + "-- down\n", "line 6: a second line `-- down`"),
        (GOOD.replace("-- parent", "-- transaction: off\n-- parent"), "`-- transaction: off` is not known"),
        (GOOD.replace("SELECT 1;", "SELECT 1;\nSELECT 'x;"), "line 4: a string constant is opened"),
        (GOOD.replace("SELECT 2;", "SELECT 2;\n\nSELECT (2;"), "line 7: a parenthesis is opened"),
        (GOOD.replace("SELECT 1;", "SELECT 1"), "line 3: the statement is not ended by a semicolon"),
        (GOOD.replace("SELECT 1;", "SELECT 1;\n begin ;\n"), "line 4: BEGIN cannot stand in a migration"),
        (GOOD.replace("SELECT 2;", "/* . */ Commit;"), "line 5: COMMIT cannot stand in a migration"),
        (GOOD.replace("SELECT 1;", "COPY t (a, b, c, d, e, f) FROM STDIN;"), "line 3: COPY with the client's data"),
        (GOOD.replace("SELECT 1;", "SELECT 1;\n\0"), "line 4: a NUL character"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name_and_line(folder: Folder, text: str, message: str) -> None:
    folder.write("20260101000000_a", text)

    with pytest.raises(MigrationError, match=message) as caught:
        files.chain(folder.path)

    assert caught.value.message.startswith("20260101000000_a.sql")


def test_a_file_that_is_not_utf8_is_refused_with_its_line(folder: Folder) -> None:
    folder.add("20260101000000_a").write_bytes(GOOD.encode() + b"-- caf\xe9\n")

    with pytest.raises(MigrationError, match=r"20260101000000_a\.sql, line 6: not UTF-8"):
        files.chain(folder.path)


@pytest.mark.parametrize(
    "name", ["0001_a", "20261301000000_a", "20260101000000", "20260101000000_Ä", "20260101000000-a"]
)
def test_a_wrong_name_is_refused(folder: Folder, name: str) -> None:
    folder.add(name)

    with pytest.raises(MigrationError, match="is not named as a migration"):
        files.chain(folder.path)


def test_two_heads_are_refused_with_both_names_and_how_to_mend_them(folder: Folder) -> None:
    folder.add("20260101000000_a")
    folder.add("20260102000000_b")
    folder.add("20260103000000_c", parent="20260101000000")

    with pytest.raises(MigrationError, match=r"Two heads: 20260102000000_b\.sql and 20260103000000_c\.sql") as caught:
        files.chain(folder.path)

    assert "db migrate rebase 20260103000000_c.sql (or 20260102000000_b.sql)" in caught.value.solutions[0]


def test_two_beginnings_are_two_heads(folder: Folder) -> None:
    folder.add("20260101000000_a")
    folder.add("20260102000000_b", parent="none")

    with pytest.raises(MigrationError, match="both follow nothing"):
        files.chain(folder.path)


def test_a_missing_parent_is_refused(folder: Folder) -> None:
    folder.add("20260101000000_a")
    folder.add("20260103000000_c", parent="20260102000000")

    with pytest.raises(MigrationError, match=r"20260103000000_c\.sql names the parent 20260102000000"):
        files.chain(folder.path)


def test_a_file_before_its_parent_is_refused(folder: Folder) -> None:
    folder.add("20260102000000_b")
    folder.add("20260101000000_a", parent="20260102000000")

    with pytest.raises(MigrationError, match=r"20260101000000_a\.sql comes before its parent 20260102000000_b\.sql"):
        files.chain(folder.path)


def test_one_timestamp_twice_is_refused(folder: Folder) -> None:
    folder.add("20260101000000_a")
    folder.add("20260101000000_b", parent="none")

    with pytest.raises(MigrationError, match="have the same timestamp"):
        files.chain(folder.path)


def test_a_missing_or_changed_loader_is_refused(folder: Folder) -> None:
    """Alembic sees the .py files only: without its own, a migration would be skipped in silence."""
    loader = folder.add("20260101000000_a").with_suffix(".py")

    loader.write_text("revision = '1'\n")
    with pytest.raises(MigrationError, match=r"20260101000000_a\.py, which Alembic needs"):
        files.chain(folder.path)

    loader.unlink()
    with pytest.raises(MigrationError, match=r"20260101000000_a\.py, which Alembic needs"):
        files.chain(folder.path)


def test_a_loader_alone_is_refused(folder: Folder) -> None:
    folder.add("20260101000000_a").unlink()

    with pytest.raises(MigrationError, match=r"20260101000000_a\.py has no \.sql file"):
        files.chain(folder.path)


def test_no_files_are_a_chain(folder: Folder) -> None:
    assert files.chain(folder.path) == ()

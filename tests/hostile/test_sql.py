"""SQL injection cannot be written: values are parameters, statements are literals, and both are checked."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import db
from shared.errors import DataException
from shared.settings import reset_settings
from tests.hostile.effort import hard, keep_at

ROOT = Path(__file__).resolve().parents[2]
ADMIN = "admin@example.com"  # the only user of a migrated database
CALLS = {"fetch_one", "fetch_all", "fetch_value", "execute", "execute_many", "stream"}
INJECTIONS = [
    "'; DROP TABLE users; --",
    "\\'; DROP TABLE users; --",
    "%s",
    "%(v)s",
    "$1",
    "$$",
    "null",
    "NULL",
    "{}",
    "E'\\\\'",
    "/*",
    "\\",
]


# -- values -----------------------------------------------------------------------------------------


@pytest.fixture(params=["psycopg", "pg8000"])
def on_database(
    request: pytest.FixtureRequest, endpoint_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Use a migrated database with each driver."""
    monkeypatch.setenv("DATABASE_URL", endpoint_database)
    monkeypatch.setenv("DATABASE_DRIVER", request.param)
    monkeypatch.setenv("APP_ENV", "test")
    reset_settings()
    yield
    db.close_db()


@pytest.mark.usefixtures("on_database")
def test_a_value_is_a_value_whatever_it_holds() -> None:
    texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    texts |= st.sampled_from([*INJECTIONS, ADMIN])

    @hard
    @given(texts)
    def attack(text: str) -> None:
        params = {"v": text, "list": [text, text]}
        assert db.fetch_value("SELECT %(v)s::text", params) == text
        assert db.fetch_one("SELECT %(list)s::text[] AS l, 'a' LIKE '%%' AS p", params) == {
            "l": [text, text],
            "p": True,
        }
        with db.transaction() as tx:
            found = tx.fetch_value("SELECT count(*) FROM users WHERE email = %(v)s", params)
            assert found == (text == ADMIN)

    keep_at(attack)
    assert db.fetch_value("SELECT count(*) FROM users") == 1


@pytest.mark.usefixtures("on_database")
@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800"])
def test_what_is_no_text_to_the_server_is_refused_as_a_value(text: str) -> None:
    with pytest.raises(DataException):
        db.fetch_value("SELECT %(v)s::text", {"v": text})
    assert db.fetch_value("SELECT 1") == 1


@pytest.mark.usefixtures("on_database")
def test_a_statement_with_parameters_is_one() -> None:
    """The extended protocol takes no second one: even a statement that was put together wrongly ends there."""
    with pytest.raises(Exception, match="multiple commands"):
        db.execute("SELECT %(v)s::int; DELETE FROM plans", {"v": 1})
    assert db.fetch_value("SELECT count(*) FROM plans") == 3


# -- statements -------------------------------------------------------------------------------------


def literals_of(tree: ast.Module) -> set[str]:
    """Give the names of a module's constants that are literal text."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def put_together(source: str) -> list[int]:
    """List the lines that give one of the face's functions a statement that is not literal."""
    tree = ast.parse(source)
    literal = literals_of(tree)
    lines = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id in ("db", "tx")):
            continue
        statement = node.args[0] if node.args else None
        is_literal = isinstance(statement, ast.Constant) or (
            isinstance(statement, ast.Name) and statement.id in literal
        )
        if not is_literal:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "file",
    sorted([*(ROOT / "functions").glob("*.py"), *(ROOT / "shared" / "web").glob("*.py")]),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_statements_are_literals(file: Path) -> None:
    lines = put_together(file.read_text("utf-8"))
    assert lines == [], "write the statement out, and give values as parameters: docs/ACCESS.md, SQL injection"


PUT_TOGETHER = [
    "db.fetch_all(f\"SELECT * FROM notes WHERE text = '{text}'\")",
    'db.fetch_all("SELECT * FROM notes WHERE text = \'" + text + "\'")',
    "db.fetch_all(\"SELECT * FROM notes WHERE text = '%s'\" % text)",
    "db.fetch_all(\"SELECT * FROM notes WHERE text = '{}'\".format(text))",
    'tx.execute(f"DELETE FROM {table}")',
]


@pytest.mark.parametrize("line", PUT_TOGETHER)
def test_what_is_put_together_is_found(line: str) -> None:
    assert put_together(f"from shared import db\n{line}\n") == [2]
    assert put_together('S = "SELECT 1"\ndb.fetch_all(S)\ndb.fetch_all("SELECT 1")\n') == []


def test_ruff_finds_it_too() -> None:
    """`make check` says so before any test runs, for this project and for what is made of it."""
    source = "from shared import db\n\n\ndef f(text: str, table: str, tx: db.Transaction) -> None:\n"
    source += "".join(f"    {line}\n" for line in PUT_TOGETHER)
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename=functions/x.py", "-"]
    done = subprocess.run(command, input=source, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.count("S608") == len(PUT_TOGETHER), done.stdout + done.stderr

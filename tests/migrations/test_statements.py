"""Splitting SQL where PostgreSQL would, and nowhere else."""

import psycopg
import pytest

from migrations.statements import Malformed, split, tokens

WHOLE = {
    "string": "SELECT 'a;b', 'it''s; -- no comment', ';'",
    "escape string": r"SELECT E'it\'s; /* ', E'\\'",
    "escape string continued on the next line": "SELECT E'a'\n  '\\';'",
    "plain string ends in a backslash": r"SELECT 'C:\', ';'",
    "unicode and bit strings": r"""SELECT U&'d\0061;', B'01', X'1F', N'a;'""",
    "quoted identifier": 'SELECT 1 AS "a;""b--"',
    "dollar quotation": "SELECT $$a;b$$, $tag$ $$;$$ $other$ ; $tag$",
    "dollars in an identifier open nothing": "SELECT a$b$ FROM (SELECT 1 AS a$b$) AS t",
    "parameter-like text": "SELECT '$1', ':name', '%s %I', '%(x)s'",
    "alias behind a one-letter name": 'SELECT e"a;" FROM (SELECT 1 AS e) AS t',
    "comments": "SELECT 1 -- one; two\n + /* ; /* nested; */ ; */ 2",
    "operator before a comment": "SELECT 5--3;\n+1",
    "parentheses": "CREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2)",
    "function body": "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
    "function body with CASE": (
        "CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC "
        "SELECT 1; SELECT CASE WHEN a > 0 THEN 1 ELSE 2 END; END"
    ),
    "procedure body": "create procedure p() language sql begin atomic select 1; select 2; end",
    "non-ASCII names": "SELECT 1 AS größe, ';' AS 表",
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE.keys())
def test_one_statement_stays_whole(text: str) -> None:
    statements = split(f"\n{text};\nSELECT 2;")

    assert [(s.text, s.line) for s in statements] == [(text, 2), ("SELECT 2", 3 + text.count("\n"))]


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE.keys())
def test_tokens_give_the_text_back(text: str) -> None:
    assert "".join(token.text for token in tokens(text)) == text


def test_the_server_splits_the_same_way(database: str) -> None:
    """Each statement of the list is one that the server takes as one: it refuses several in the extended protocol."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (a int)")
        for name, text in WHOLE.items():
            result = connection.pgconn.exec_params(text.encode(), [])
            assert not result.error_message, (name, result.error_message.decode())


def test_begin_and_end_are_words_like_others_outside_of_a_function() -> None:
    texts = ["SELECT 1 AS atomic", "COMMENT ON TABLE begin IS 'x'", "SELECT CASE WHEN true THEN 1 END"]

    assert [s.text for s in split(";\n".join(texts) + ";")] == texts


def test_comments_and_stray_semicolons_are_no_statements() -> None:
    assert split("-- nothing;\n;;\n/* here; */\n") == []


def test_the_line_is_that_of_the_file() -> None:
    assert [s.line for s in split("-- c\n\nSELECT 1;\r\nSELECT\n2;", first_line=10)] == [12, 13]


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("SELECT 1;\nSELECT 'a;\n", "string constant", 17),
        ("SELECT E'a\\';", "string constant", 7),
        ("SELECT 'it''s;", "string constant", 7),
        ('SELECT "a;', "quoted identifier", 7),
        ("SELECT $x$ a $y$;", r"dollar quotation \$x\$", 7),
        ("SELECT 1 /* a /* b */;", "comment", 9),
        ("SELECT (1;\nSELECT 2;", "parenthesis", 7),
        ("SELECT 1;\nSELECT 2\n", "semicolon", 10),
    ],
)
def test_what_is_never_closed_is_named(text: str, message: str, offset: int) -> None:
    with pytest.raises(Malformed, match=message) as caught:
        split(text)

    assert caught.value.offset == offset


def test_first_words_skip_comments() -> None:
    (statement,) = split("/* why */ create /* really */ unique index concurrently i on t (a);")

    assert statement.words[:4] == ("CREATE", "UNIQUE", "INDEX", "CONCURRENTLY")

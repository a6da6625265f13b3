"""Which functions an expression calls, and what is known of how they behave (manual 38.7; pg_proc.provolatile)."""

from migrations.lint.syntax import Cursor, folded

# As pg_proc has them on 16 and later; a test compares them with the server.
IMMUTABLE = frozenset(
    "abs btrim ceil ceiling decode div encode floor initcap jsonb_array_length jsonb_typeof left length "
    "lower lpad ltrim make_date make_interval make_time md5 mod octet_length overlay power regexp_replace repeat "
    "replace reverse right round rpad rtrim sha224 sha256 sha384 sha512 sign split_part sqrt starts_with strpos "
    "substr substring translate trunc upper".split()
)
STABLE = frozenset(
    "age array_to_json concat concat_ws current_database current_schema current_setting date_trunc format "
    "json_build_array json_build_object jsonb_build_array jsonb_build_object make_timestamptz now pg_my_temp_schema "
    "quote_literal row_to_json statement_timestamp to_char to_date to_json to_jsonb to_timestamp "
    "transaction_timestamp".split()
)
# Written as functions, but expressions of the grammar: they are what their arguments are.
EXPRESSIONS = frozenset("array cast coalesce exists extract greatest in least nullif position row trim values".split())
# Without parentheses, and another value in each transaction.
_STABLE_WORDS = {"CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP"}
_IDEMPOTENT = frozenset("btrim coalesce initcap lower ltrim rtrim trim upper".split())


def functions(expression: str) -> list[str]:
    """List what stands before a parenthesis, without its schema; a type with a length, as behind ::, is none."""
    cursor, found = Cursor(expression), []
    while not cursor.is_done:
        token = cursor.advance()
        is_name = token.kind == "word" or token.text.endswith('"')
        if is_name and cursor.at_symbol("(") and not _names_a_type(cursor):
            found.append(folded(token.text))
    return found


def _names_a_type(cursor: Cursor) -> bool:
    before = cursor.peek(-2)
    return before.text == ":" or before.text.upper() in ("AS", "CHARACTER", "BIT", "VARYING")


def may_be_volatile(expression: str) -> bool:
    """Tell whether it may give another value for each row: it calls a function that is not known to be steady."""
    return any(name not in IMMUTABLE | STABLE | EXPRESSIONS for name in functions(expression))


def is_steady(expression: str) -> bool:
    """Tell whether it gives the same value in each transaction for the same row, and is no query."""
    words = {token.upper() for token in _words(expression)}
    known = all(name in IMMUTABLE | EXPRESSIONS for name in functions(expression))
    return known and not words & _STABLE_WORDS


def is_idempotent(expression: str, column: str) -> bool:
    """Tell whether applying it to its own result, which the column then holds, changes nothing any more."""
    called = functions(expression)
    if column not in [folded(word) for word in _words(expression)]:
        return True
    cursor = Cursor(expression)
    wraps = len(called) == 1 and called[0] in _IDEMPOTENT and folded(cursor.advance().text) == called[0]
    return wraps and cursor.advance().text == "(" and folded(cursor.advance().text) == column


def _words(expression: str) -> list[str]:
    cursor, found = Cursor(expression), []
    while not cursor.is_done:
        token = cursor.advance()
        if token.kind == "word" or token.text.endswith('"'):
            found.append(token.text)
    return found

"""Rows: changing all of them at once, emptying a table, locking it."""

from collections.abc import Iterator

from migrations.lint import backfill
from migrations.lint.finding import Safe
from migrations.lint.locks import access_exclusive
from migrations.lint.nodes import Change, Maintain
from migrations.lint.rule import Context, Rule, Trouble, one, outside
from migrations.lint.syntax import Cursor, words_of

# Others read and write meanwhile (manual 13.3.1).
_HARMLESS_MODES = ("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE")


def _all_rows(context: Context) -> Iterator[Trouble]:
    change = context.node
    if not isinstance(change, Change) or context.catalog.is_new(change.table) or _names_rows(change.where):
        return
    if context.statement.repeated and "limit" in words_of(change.where):
        return
    batches = backfill.of_change(change, context.catalog.table(change.table).key)
    safe: Safe = (outside(batches),) if batches else ()
    message = f"{change.kind} of all rows of {change.table.text} at once keeps each of them locked until the end."
    if lock := _locked_before(context):
        message = f"{message[:-1]}, and with them {lock}, which this file has locked."
    if batches is None:
        message += (
            " Say in its WHERE which rows are still to be changed, so that it can be repeated for some at a time."
        )
    yield Trouble(message, safe)


def _names_rows(where: str) -> bool:
    """Tell whether a condition compares with constants, which some rows meet: `=` or IN, and a literal."""
    cursor, previous = Cursor(where), ""
    while not cursor.is_done:
        token = cursor.advance()
        if token.text == "=" and previous not in ("<", ">", "!") and _is_constant(cursor):
            return True
        if token.text.upper() == "IN" and previous.upper() != "NOT" and cursor.peek().kind == "open":
            return cursor.peek(1).text.upper() != "SELECT"
        previous = token.text
    return False


def _is_constant(cursor: Cursor) -> bool:
    token = cursor.peek()
    is_string = token.kind == "string" and not token.text.endswith('"')
    return is_string or token.text.isdigit() or token.text.upper() in ("TRUE", "FALSE", "-")


def _locked_before(context: Context) -> str:
    for step in context.before if context.transactional else ():
        for name in access_exclusive(step.node, context.catalog.indexes):
            if not context.catalog.is_new(name):
                return name.text
    return ""


def _never_ends(context: Context) -> Iterator[Trouble]:
    change = context.node
    if not context.statement.repeated or not isinstance(change, Change) or change.kind == "DELETE":
        return
    words = words_of(change.where)
    if any(column in words for column in backfill.assigned(change)):
        return
    batches = backfill.of_change(change, context.catalog.table(change.table).key)
    yield Trouble(
        "Repeated until it touches no rows, it would go on for ever: nothing in its WHERE says that a row is done. "
        "Ask there for what the statement changes.",
        (outside(batches),) if batches else (),
    )


def _truncate(context: Context) -> Iterator[Trouble]:
    node = context.node
    if not isinstance(node, Maintain) or node.kind != "TRUNCATE":
        return
    old = [name for name in node.names if not context.catalog.is_new(name)]
    if not old:
        return
    names = ", ".join(name.text for name in old)
    changes = [Change("DELETE", name, name.text, name.text) for name in old]
    deletes = (backfill.of_change(change, context.catalog.table(change.table).key) for change in changes)
    cascades = " CASCADE empties every table that refers to it as well." if "CASCADE" in node.rest else ""
    yield Trouble(
        f"TRUNCATE waits for everybody who uses {names}, and keeps everybody else waiting; the rows are "
        f"lost.{cascades}",
        (outside(*(delete for delete in deletes if delete)),),
    )


def _lock(context: Context) -> Iterator[Trouble]:
    node = context.node
    if not isinstance(node, Maintain) or node.kind != "LOCK" or node.what in _HARMLESS_MODES:
        return
    old = [name.text for name in node.names if not context.catalog.is_new(name)]
    if old:
        names = ", ".join(old)
        yield Trouble(
            f"LOCK TABLE in {node.what} mode keeps others off {names} until the transaction ends. Each statement takes "
            "the lock that it needs; SHARE UPDATE EXCLUSIVE keeps other schema changes off, and lets people work.",
            (one(f"LOCK TABLE {names} IN SHARE UPDATE EXCLUSIVE MODE;"),),
        )


RULES = (
    Rule(
        "change-all-rows",
        "error",
        "`UPDATE` or `DELETE` without a `WHERE` that compares with constants (`=`, `IN`)",
        "`-- transaction: none`, and before the statement `-- repeat until no rows`, a thousand rows at a time",
        _all_rows,
    ),
    Rule(
        "repeat-never-ends",
        "error",
        "`-- repeat until no rows` before a statement whose `WHERE` does not ask for what it changes",
        "`WHERE column IS DISTINCT FROM value`, with a `LIMIT`",
        _never_ends,
        ways=("up", "down"),
    ),
    Rule(
        "truncate",
        "error",
        "`TRUNCATE`",
        "`DELETE` a thousand rows at a time",
        _truncate,
    ),
    Rule(
        "lock-table",
        "error",
        "`LOCK TABLE` in a mode that keeps reads or writes waiting",
        "`LOCK TABLE ... IN SHARE UPDATE EXCLUSIVE MODE`, or none",
        _lock,
    ),
)

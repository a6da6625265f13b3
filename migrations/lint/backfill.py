"""Change many rows a thousand at a time: the form that `-- repeat until no rows` runs (migrations/files.py)."""

from migrations.lint.nodes import Change
from migrations.lint.syntax import Cursor, Name, operand, top_level, words_of
from migrations.lint.volatility import is_idempotent, is_steady

# Each time the scan begins where the last one ended, if the table is large: synchronize_seqscans (manual 19.13.1).
ROWS = 1000
_MARK = "-- repeat until no rows\n"


def update(table: Name, key: str, assignments: str, condition: str) -> str:
    """Write an UPDATE of those rows that meet a condition, and no longer do afterwards; `key` tells rows apart."""
    some = _some(table.text, key, table.text, condition)
    return f"{_MARK}UPDATE {table.text} SET {assignments}\nWHERE {some};"  # noqa: S608 - shown, never run


def of_change(change: Change, key: str) -> str | None:
    """Write an UPDATE or DELETE so that it may be repeated; None where it would never come to an end.

    An UPDATE whose WHERE does not say that the row is to be changed gets that said.
    """
    conditions = [change.where] if change.where and change.where.upper() != "TRUE" else []
    verb = f"DELETE FROM {change.target}"  # noqa: S608
    if change.kind == "UPDATE":
        verb = f"UPDATE {change.target} SET {change.assignments}"  # noqa: S608
        values = _assignments(change)
        if values is None:
            return None
        if not any(_asks_for_null(change.where, column) for column, _ in values):
            if not all(is_steady(value) and is_idempotent(value, column.name) for column, value in values):
                return None
            conditions.append(_differs(change.alias, values))
    sources = change.target
    if change.source:
        verb += f"\n{'FROM' if change.kind == 'UPDATE' else 'USING'} {change.source}"
        sources += f", {change.source}"
    several = len(conditions) > 1
    condition = " AND ".join(f"({text})" if several else text for text in conditions)
    return f"{_MARK}{verb}\nWHERE {_some(change.alias, key, sources, condition)};"


def assigned(change: Change) -> list[str]:
    """List the columns that an UPDATE sets, as far as they can be told."""
    columns = []
    for assignment in top_level(change.assignments):
        cursor = Cursor(assignment)
        if cursor.peek().kind == "open":
            columns += words_of(cursor.group())
        elif not cursor.is_done:
            columns.append(cursor.name().name)
    return columns


def _some(alias: str, key: str, sources: str, condition: str) -> str:
    """Pick rows, in an ARRAY, which is read once whatever the plan; what stands in IN may be run for each row.

    The condition stands outside too, where a row that somebody has just changed is looked at again.
    """
    where = f" WHERE {condition}" if condition else ""
    chosen = f"SELECT {alias}.{key} FROM {sources}{where} LIMIT {ROWS}"  # noqa: S608
    rows = f"{alias}.{key} = ANY (ARRAY({chosen}))"
    return f"{rows}\n  AND ({condition})" if condition else rows


def _assignments(change: Change) -> list[tuple[Name, str]] | None:
    """List columns and values; None for forms other than `column = value`, and for DEFAULT."""
    found = []
    for assignment in top_level(change.assignments):
        cursor = Cursor(assignment)
        if cursor.peek().kind == "open":
            return None
        column = cursor.name()
        if not cursor.take_symbol("="):
            return None
        found.append((column, assignment[cursor.start :]))
    return found


def _asks_for_null(where: str, column: Name) -> bool:
    """Tell whether the rows are those without a value in the column, which they have afterwards."""
    words = words_of(where)
    return any(words[i : i + 3] == [column.name, "is", "null"] for i in range(len(words)))


def _differs(alias: str, values: list[tuple[Name, str]]) -> str:
    """Say that a row is not yet what the assignments make of it."""
    return " OR ".join(f"{alias}.{column.text} IS DISTINCT FROM {operand(value)}" for column, value in values)

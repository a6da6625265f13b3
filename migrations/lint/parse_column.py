"""Take the definition of a column or a table constraint apart (manual, CREATE TABLE)."""

from dataclasses import replace

from migrations.lint.nodes import Column, ColumnConstraint, ColumnConstraintKind, Constraint, ConstraintKind
from migrations.lint.syntax import Cursor, Name, Unrecognised, top_level

_BEGIN_A_CONSTRAINT = ("CONSTRAINT", "CHECK", "UNIQUE", "PRIMARY", "FOREIGN")
_FOLLOW_A_TYPE = (
    *("CONSTRAINT", "NOT", "NULL", "DEFAULT", "CHECK", "UNIQUE", "PRIMARY", "REFERENCES", "GENERATED", "COLLATE"),
    *("DEFERRABLE", "INITIALLY", "STORAGE", "COMPRESSION", "NO", "ENFORCED"),
)


def column(cursor: Cursor) -> Column:
    """Read a column definition. Raises Unrecognised."""
    return typed(cursor, cursor.name())


def typed(cursor: Cursor, name: Name) -> Column:
    """Read what follows the name of a column or a domain. Raises Unrecognised."""
    written = cursor.until(*_FOLLOW_A_TYPE)
    constraints: list[ColumnConstraint] = []
    collation = ""
    while not cursor.is_done and not cursor.at_symbol(","):
        if cursor.take("COLLATE"):
            collation = cursor.name().text
        elif not _attribute(cursor):
            constraints.append(_column_constraint(cursor))
    if not written:
        raise Unrecognised
    return Column(name, written, tuple(constraints), collation)


def _attribute(cursor: Cursor) -> bool:
    """Read what says how a constraint or a column is kept, and does not matter here."""
    for words in (
        ("NOT", "DEFERRABLE"),
        ("DEFERRABLE",),
        ("INITIALLY", "DEFERRED"),
        ("INITIALLY", "IMMEDIATE"),
        ("NO", "INHERIT"),
        ("NOT", "ENFORCED"),
        ("ENFORCED",),
    ):
        if cursor.take(*words):
            return True
    if cursor.take("STORAGE") or cursor.take("COMPRESSION"):
        cursor.advance()
        return True
    return False


def _column_constraint(cursor: Cursor) -> ColumnConstraint:
    name = cursor.name() if cursor.take("CONSTRAINT") else None
    start = cursor.start
    kind, expression = _column_constraint_parts(cursor)
    return ColumnConstraint(kind, cursor.text[start : cursor.end], expression, name)


def _column_constraint_parts(cursor: Cursor) -> tuple[ColumnConstraintKind, str]:
    if cursor.take("NOT", "NULL"):
        return "NOT NULL", ""
    if cursor.take("NULL"):
        return "NULL", ""
    if cursor.take("DEFAULT"):
        start = cursor.start
        cursor.skip()
        cursor.until(*_FOLLOW_A_TYPE)
        return "DEFAULT", cursor.text[start : cursor.end]
    if cursor.take("CHECK"):
        return "CHECK", cursor.group()
    if cursor.take("GENERATED"):
        return _generated(cursor)
    if cursor.take("REFERENCES"):
        return "REFERENCES", _references(cursor)
    if cursor.take("UNIQUE"):
        return "UNIQUE", _nulls(cursor)
    cursor.need("PRIMARY", "KEY")
    return "PRIMARY KEY", ""


def _nulls(cursor: Cursor) -> str:
    if cursor.take("NULLS", "NOT", "DISTINCT"):
        return "NULLS NOT DISTINCT"
    cursor.take("NULLS", "DISTINCT")
    return ""


def _references(cursor: Cursor) -> str:
    table = cursor.name().text
    if cursor.peek().kind == "open":
        cursor.skip()
    while cursor.take("MATCH") or cursor.take("ON", "DELETE") or cursor.take("ON", "UPDATE"):
        if cursor.take("SET") or cursor.take("NO"):
            cursor.advance()
            if cursor.peek().kind == "open":
                cursor.skip()
        else:
            cursor.advance()
    return table


def _generated(cursor: Cursor) -> tuple[ColumnConstraintKind, str]:
    if not cursor.take("ALWAYS"):
        cursor.need("BY", "DEFAULT")
    cursor.need("AS")
    if cursor.take("IDENTITY"):
        if cursor.peek().kind == "open":
            cursor.skip()
        return "IDENTITY", ""
    expression = cursor.group()
    if cursor.take("STORED"):
        return "STORED", expression
    cursor.take("VIRTUAL")  # what PostgreSQL 18 takes for granted where neither is said
    return "VIRTUAL", expression


def is_constraint(cursor: Cursor) -> bool:
    """Tell whether a table constraint comes next, rather than a column."""
    if cursor.word in _BEGIN_A_CONSTRAINT or cursor.at("NOT", "NULL"):
        return True
    behind = cursor.peek(1)
    return cursor.at("EXCLUDE") and (behind.kind == "open" or behind.text.upper() == "USING")


def constraint(cursor: Cursor) -> Constraint:
    """Read a table constraint. Raises Unrecognised."""
    name = cursor.name() if cursor.take("CONSTRAINT") else None
    start = cursor.start
    found = _constraint_parts(cursor)
    behind = end = cursor.end
    not_valid = False
    while not cursor.is_done and not cursor.at_symbol(","):
        if cursor.take("NOT", "VALID"):
            not_valid = True
        else:
            cursor.skip()
            end = cursor.end
    text, tail = cursor.text[start:end], cursor.text[behind:end].strip()
    return replace(found, name=name, text=text, not_valid=not_valid, tail=tail)


def _constraint_parts(cursor: Cursor) -> Constraint:
    if cursor.take("CHECK"):
        return Constraint("CHECK", "", expression=cursor.group())
    if cursor.take("NOT", "NULL"):
        return Constraint("NOT NULL", "", columns=(cursor.name(),))
    if cursor.take("FOREIGN", "KEY"):
        columns = _columns(cursor.group())
        cursor.need("REFERENCES")
        return Constraint("FOREIGN KEY", "", columns=columns, references=cursor.name())
    if cursor.take("EXCLUDE"):
        return Constraint("EXCLUDE", "")
    kind: ConstraintKind = "UNIQUE"
    if not cursor.take("UNIQUE"):
        cursor.need("PRIMARY", "KEY")
        kind = "PRIMARY KEY"
    if cursor.take("USING", "INDEX"):
        return Constraint(kind, "", index=cursor.name())
    nulls = _nulls(cursor)
    columns = _columns(cursor.group())
    include = cursor.group() if cursor.take("INCLUDE") else ""
    parameters = f"WITH ({cursor.group()})" if cursor.take("WITH") else ""
    of_index = " ".join(part for part in (f"INCLUDE ({include})" if include else "", nulls, parameters) if part)
    return Constraint(kind, "", columns=columns, included=_columns(include), of_index=of_index)


def _columns(text: str) -> tuple[Name, ...]:
    return tuple(Cursor(part).name() for part in top_level(text))

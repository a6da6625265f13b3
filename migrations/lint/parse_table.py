"""Take CREATE TABLE and ALTER TABLE apart (manual, SQL Commands)."""

from migrations.lint.nodes import (
    Action,
    AddColumn,
    AddConstraint,
    AlterTable,
    AlterType,
    Column,
    Constraint,
    CreateDomain,
    CreateTable,
    DropColumn,
    DropConstraint,
    DropNotNull,
    RenameColumn,
    RenameTable,
    SetNotNull,
    SetSchema,
    Validate,
)
from migrations.lint.parse_column import column, constraint, is_constraint, typed
from migrations.lint.syntax import Cursor, Unrecognised, top_level


def create_table(cursor: Cursor) -> CreateTable:
    """Read CREATE TABLE from TABLE on. Raises Unrecognised."""
    cursor.need("TABLE")
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    table = cursor.name()
    parent = cursor.name() if cursor.take("PARTITION", "OF") else None
    columns: list[Column] = []
    constraints: list[Constraint] = []
    if parent is None and cursor.peek().kind == "open":
        for text in top_level(cursor.group()):
            element = Cursor(text)
            if element.at("LIKE"):
                continue
            try:
                if is_constraint(element):
                    constraints.append(constraint(element))
                else:
                    columns.append(column(element))
            except Unrecognised:  # the names of CREATE TABLE AS, or something new: then less is known of the table
                continue
    partitioned = False
    while not cursor.is_done:
        partitioned = partitioned or cursor.at("PARTITION", "BY")
        cursor.skip()
    return CreateTable(table, tuple(columns), tuple(constraints), if_not_exists, partitioned, parent)


def create_domain(cursor: Cursor) -> CreateDomain:
    """Read CREATE DOMAIN from its name on. Raises Unrecognised."""
    name = cursor.name()
    cursor.take("AS")
    return CreateDomain(name, typed(cursor, name))


def alter_table(cursor: Cursor) -> tuple[AlterTable, bool]:
    """Read ALTER TABLE from TABLE on; tells beside it whether each action is known. Raises Unrecognised."""
    cursor.take("FOREIGN")
    cursor.need("TABLE")
    if cursor.take("ALL", "IN"):  # TABLESPACE: every table of it
        raise Unrecognised
    if_exists = cursor.take("IF", "EXISTS")
    cursor.take("ONLY")
    table = cursor.name()
    cursor.take_symbol("*")
    actions: list[Action] = []
    known = True
    while True:
        start = cursor.start
        try:
            actions.append(_action(cursor))
        except Unrecognised:
            known = False
        if not cursor.is_done and not cursor.at_symbol(","):  # something follows that was not expected
            known = False
            cursor.until()
        if known is False and cursor.start == start:
            raise Unrecognised
        if not cursor.take_symbol(","):
            break
    return AlterTable(table, tuple(actions), if_exists), known


def _action(cursor: Cursor) -> Action:
    start = cursor.start
    if cursor.take("ADD"):
        return _add(cursor, start)
    if cursor.take("DROP", "CONSTRAINT"):
        if_exists = cursor.take("IF", "EXISTS")
        action: Action = DropConstraint(start=start, constraint=cursor.name(), if_exists=if_exists)
        _cascade(cursor)
        return action
    if cursor.take("DROP"):
        cursor.take("COLUMN")
        if_exists = cursor.take("IF", "EXISTS")
        action = DropColumn(start=start, column=cursor.name(), if_exists=if_exists)
        _cascade(cursor)
        return action
    if cursor.take("VALIDATE", "CONSTRAINT"):
        return Validate(start=start, constraint=cursor.name())
    if cursor.take("RENAME"):
        return _rename(cursor, start)
    if cursor.take("SET", "SCHEMA"):
        return SetSchema(start=start, schema=cursor.name())
    if cursor.at("ALTER") and not cursor.at("ALTER", "CONSTRAINT"):
        return _alter_column(cursor, start)
    return _plain(cursor, start)


def _cascade(cursor: Cursor) -> None:
    if not cursor.take("CASCADE"):
        cursor.take("RESTRICT")


def _plain(cursor: Cursor, start: int, *read: str) -> Action:
    """Read an action to its end, and keep its words, those read before among them."""
    words = list(read)
    while not cursor.is_done and not cursor.at_symbol(","):
        if cursor.word:
            words.append(cursor.word)
        cursor.skip()
    if len(words) == len(read):
        raise Unrecognised
    return Action(start=start, words=tuple(words))


def _add(cursor: Cursor, start: int) -> Action:
    if is_constraint(cursor):
        return AddConstraint(start=start, constraint=constraint(cursor))
    cursor.take("COLUMN")
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    begin = cursor.start
    found = column(cursor)
    return AddColumn(start=start, column=found, text=cursor.text[begin : cursor.end], if_not_exists=if_not_exists)


def _rename(cursor: Cursor, start: int) -> Action:
    if cursor.at("CONSTRAINT"):
        return _plain(cursor, start)
    if cursor.take("TO"):
        return RenameTable(start=start, to=cursor.name())
    cursor.take("COLUMN")
    old = cursor.name()
    cursor.need("TO")
    return RenameColumn(start=start, column=old, to=cursor.name())


def _alter_column(cursor: Cursor, start: int) -> Action:
    cursor.need("ALTER")
    cursor.take("COLUMN")
    name = cursor.name()
    if cursor.take("SET", "NOT", "NULL"):
        return SetNotNull(start=start, column=name)
    if cursor.take("DROP", "NOT", "NULL"):
        return DropNotNull(start=start, column=name)
    if cursor.take("SET", "DATA", "TYPE") or cursor.take("TYPE"):
        written = cursor.until("COLLATE", "USING")
        collation = cursor.name().text if cursor.take("COLLATE") else ""
        using = cursor.until() if cursor.take("USING") else ""
        return AlterType(start=start, column=name, type=written, collation=collation, using=using)
    return _plain(cursor, start, "ALTER")

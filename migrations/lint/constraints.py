"""Constraints: what is added without a scan, and checked in the next file while the site goes on."""

from collections.abc import Iterator, Sequence

from migrations.lint import replacement
from migrations.lint.finding import Safe
from migrations.lint.nodes import (
    Action,
    AddColumn,
    AddConstraint,
    AlterTable,
    Column,
    ColumnConstraint,
    Constraint,
    Node,
    Validate,
)
from migrations.lint.rule import Context, Rule, Trouble, act, actions, allowed, one, outside, text_of
from migrations.lint.syntax import Name
from migrations.lint.volatility import may_be_volatile


def _constraints(context: Context, *kinds: str) -> Iterator[tuple[Name, AddConstraint]]:
    for table, action in actions(context, AddConstraint):
        if action.constraint.kind in kinds:
            yield table, action


def _inline(context: Context, *kinds: str) -> Iterator[tuple[Name, AddColumn, ColumnConstraint]]:
    for table, action in actions(context, AddColumn):
        for constraint in action.column.constraints:
            if constraint.kind in kinds:
                yield table, action, constraint


def _in_two(table: Name, name: str, definition: str, *before: str) -> Safe:
    """Add a constraint that holds for new rows, and validate it in the next file."""
    return (
        one(*before, act(table, f"ADD CONSTRAINT {name} {definition} NOT VALID")),
        one(act(table, f"VALIDATE CONSTRAINT {name}")),
    )


def _named(constraint: Constraint | ColumnConstraint, default: str) -> str:
    return constraint.name.text if constraint.name is not None else default


def _without(table: Name, column: Column) -> str:
    """Add a column without its constraints but those that cost nothing."""
    default = column.get("DEFAULT")
    is_cheap = default is not None and not may_be_volatile(default.expression)
    kinds = ("DEFAULT", "NOT NULL") if is_cheap else ()
    kept = [constraint.text for constraint in column.constraints if constraint.kind in kinds]
    collation = [f"COLLATE {column.collation}"] if column.collation else []
    return act(table, " ".join(["ADD COLUMN", column.name.text, column.type, *collation, *kept]))


def _foreign_key(context: Context) -> Iterator[Trouble]:
    for table, action in _constraints(context, "FOREIGN KEY"):
        constraint = action.constraint
        if constraint.not_valid or constraint.references is None:
            continue
        name = _named(constraint, table.derived(*(column.name for column in constraint.columns), "fkey"))
        safe = _in_two(table, name, constraint.text)
        yield _unchecked_key(table, constraint.references.text, name, safe, action)
    for table, addition, inline in _inline(context, "REFERENCES"):
        if not addition.column.has("DEFAULT"):
            continue  # every row has NULL, and the server knows that there is nothing to check
        column = addition.column.name
        name = _named(inline, table.derived(column.name, "fkey"))
        definition = f"FOREIGN KEY ({column.text}) {inline.text}"
        safe = _in_two(table, name, definition, _without(table, addition.column))
        yield _unchecked_key(table, inline.expression, name, safe, addition)


def _unchecked_key(table: Name, references: str, name: str, safe: Safe, action: Action) -> Trouble:
    return Trouble(
        f"Adding the foreign key {name} looks at every row of {table.text}, and nobody writes "
        f"{table.text} or {references} meanwhile.",
        safe,
        action.start,
    )


def _check(context: Context) -> Iterator[Trouble]:
    for table, action in _constraints(context, "CHECK", "NOT NULL"):
        constraint = action.constraint
        if constraint.not_valid:
            continue
        if constraint.kind == "NOT NULL":  # of PostgreSQL 18; the floor is 16
            (column,) = constraint.columns
            not_null = replacement.validated_not_null(table, column)
            yield _unchecked(table, f"NOT NULL {column.text}", not_null, action)
        else:
            name = _named(constraint, _check_name(table, constraint.expression, context))
            yield _unchecked(table, name, _in_two(table, name, constraint.text), action)
    for table, addition, inline in _inline(context, "CHECK"):
        name = _named(inline, table.derived(addition.column.name.name, "check"))
        safe = _in_two(table, name, f"CHECK ({inline.expression})", _without(table, addition.column))
        yield _unchecked(table, name, safe, addition)


def _check_name(table: Name, expression: str, context: Context) -> str:
    """Name it as the server would: after the column, where it mentions just one."""
    mentioned = context.catalog.table(table).mentioned(expression)
    return table.derived(*(mentioned if len(mentioned) == 1 else ()), "check")


def _unchecked(table: Name, name: str, safe: Safe, action: Action) -> Trouble:
    return Trouble(
        f"Adding {name} checks every row of {table.text}, and nobody reads or writes it meanwhile.", safe, action.start
    )


def _unique(context: Context) -> Iterator[Trouble]:
    for table, action in _constraints(context, "UNIQUE"):
        constraint = action.constraint
        if constraint.index is not None:
            continue
        columns = (*constraint.columns, *constraint.included)
        name = _named(constraint, table.derived(*(column.name for column in columns), "key"))
        yield _builds(table, name, _by_index(table, name, constraint), action)
    for table, addition, inline in _inline(context, "UNIQUE"):
        name = _named(inline, table.derived(addition.column.name.name, "key"))
        constraint = Constraint("UNIQUE", "", columns=(addition.column.name,), of_index=inline.expression)
        safe = (one(_without(table, addition.column)), *_by_index(table, name, constraint))
        yield _builds(table, name, safe, addition)


def _by_index(table: Name, name: str, constraint: Constraint) -> Safe:
    """Build the index while the site goes on, then make it the constraint."""
    columns = ", ".join(column.text for column in constraint.columns)
    index = f"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table.text} ({columns}) {constraint.of_index}"
    add = f"ADD CONSTRAINT {name} {constraint.kind} USING INDEX {name} {constraint.tail}"
    return (outside(f"{index.rstrip()};"), one(act(table, add.rstrip())))


def _builds(table: Name, name: str, safe: Safe, action: Action) -> Trouble:
    return Trouble(
        f"Adding {name} builds an index over {table.text}, and nobody reads or writes it meanwhile.", safe, action.start
    )


def _primary_key(context: Context) -> Iterator[Trouble]:
    for table, action in _constraints(context, "PRIMARY KEY"):
        constraint = action.constraint
        if constraint.index is not None:
            continue
        name = _named(constraint, table.derived("pkey"))
        safe = _key_by_index(context, table, name, constraint)
        yield _builds(table, name, safe, action)
    for table, addition, inline in _inline(context, "PRIMARY KEY"):
        name = _named(inline, table.derived("pkey"))
        constraint = Constraint("PRIMARY KEY", "", columns=(addition.column.name,))
        keys = _key_by_index(context, table, name, constraint)
        yield _builds(table, name, (one(_without(table, addition.column)), *keys), addition)


def _key_by_index(context: Context, table: Name, name: str, constraint: Constraint) -> Safe:
    index, key = _by_index(table, name, constraint)
    not_null = context.catalog.table(table).not_null
    nullable = [column for column in constraint.columns if column.name not in not_null]
    if not nullable:
        return (index, key)
    return (index, *replacement.validated_not_null(table, *nullable, then=(key.sql,)))


def _exclusion(context: Context) -> Iterator[Trouble]:
    for table, action in _constraints(context, "EXCLUDE"):
        text = text_of(context, action)
        yield Trouble(
            f"Adding an exclusion constraint builds an index over {table.text}, and nobody reads or writes it "
            "meanwhile. There is no other way: do it while the table is small or the site is quiet, and say so.",
            (one(allowed("add-exclusion", f"{table.text} is small", act(table, text))),),
            action.start,
        )


def _validate(context: Context) -> Iterator[Trouble]:
    nodes = [step.node for step in context.steps[: context.index + 1]]
    for table, action in actions(context, Validate):
        if context.transactional and action.constraint.name in _added_unchecked(nodes, table):
            yield Trouble(
                f"Validating {action.constraint.text} in the transaction that adds it looks at every row under the "
                f"lock that adding took: nobody writes {table.text} meanwhile.",
                (one(act(table, f"VALIDATE CONSTRAINT {action.constraint.text}"), when="in a file after this one"),),
                action.start,
            )


def _added_unchecked(nodes: Sequence[Node], table: Name) -> set[str]:
    return {
        action.constraint.name.name
        for node in nodes
        if isinstance(node, AlterTable) and node.table.is_same(table)
        for action in node.actions
        if isinstance(action, AddConstraint) and action.constraint.not_valid and action.constraint.name is not None
    }


def _detach(context: Context) -> Iterator[Trouble]:
    for table, action in actions(context, Action):
        if action.words[:2] == ("DETACH", "PARTITION") and not {"CONCURRENTLY", "FINALIZE"} & set(action.words):
            yield Trouble(
                f"DETACH PARTITION waits for everybody who uses {table.text}, and keeps everybody else waiting.",
                (outside(act(table, f"{text_of(context, action)} CONCURRENTLY")),),
                action.start,
            )


RULES = (
    Rule(
        "add-foreign-key",
        "error",
        "`ADD FOREIGN KEY` without `NOT VALID`",
        "`ADD CONSTRAINT ... NOT VALID`; in the next file `VALIDATE CONSTRAINT`",
        _foreign_key,
    ),
    Rule(
        "add-check",
        "error",
        "`ADD CHECK` without `NOT VALID`, also with `ADD COLUMN`",
        "`ADD CONSTRAINT ... NOT VALID`; in the next file `VALIDATE CONSTRAINT`",
        _check,
    ),
    Rule(
        "add-unique",
        "error",
        "`ADD UNIQUE` without `USING INDEX`, also with `ADD COLUMN`",
        "`CREATE UNIQUE INDEX CONCURRENTLY`; in the next file `ADD ... USING INDEX`",
        _unique,
    ),
    Rule(
        "add-primary-key",
        "error",
        "`ADD PRIMARY KEY` without `USING INDEX`, also with `ADD COLUMN`",
        "`CREATE UNIQUE INDEX CONCURRENTLY`; in the next file `ADD ... USING INDEX`, the columns `NOT NULL` before",
        _primary_key,
    ),
    Rule(
        "add-exclusion",
        "error",
        "`ADD EXCLUDE`",
        "There is none: while the table is small, with the reason",
        _exclusion,
    ),
    Rule(
        "validate-with-add",
        "error",
        "`VALIDATE CONSTRAINT` in the transaction that adds it",
        "`VALIDATE CONSTRAINT` in the next file",
        _validate,
    ),
    Rule(
        "detach-partition",
        "error",
        "`DETACH PARTITION` without `CONCURRENTLY`",
        "`DETACH PARTITION ... CONCURRENTLY` in a file with `-- transaction: none`",
        _detach,
    ),
)

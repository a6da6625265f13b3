"""Columns: adding one, changing its type, making it NOT NULL."""

from collections.abc import Iterator

from migrations.lint import backfill, replacement, types
from migrations.lint.finding import Safe
from migrations.lint.nodes import AddColumn, AlterType, Column, SetNotNull
from migrations.lint.rule import Context, Rule, Trouble, act, actions, one, outside
from migrations.lint.syntax import Name, operand, replaced
from migrations.lint.volatility import may_be_volatile

_SERIAL = {
    "serial": "integer",
    "serial4": "integer",
    "bigserial": "bigint",
    "serial8": "bigint",
    "smallserial": "smallint",
    "serial2": "smallint",
}
# A value that old rows can have, by the type of the column; the writer knows a better one.
_ZERO = {
    **dict.fromkeys(("smallint", "integer", "bigint", "numeric", "real", "double precision"), "0"),
    **dict.fromkeys(("text", "varchar", "char"), "''"),
    **dict.fromkeys(("json", "jsonb"), "'{}'"),
    "boolean": "false",
    "timestamptz": "now()",
    "timestamp": "now()",
    "date": "current_date",
}


def _plain(table: Name, column: Column, written: str) -> str:
    """Add a column without what would rewrite or scan the table."""
    collation = f" COLLATE {column.collation}" if column.collation else ""
    references = column.get("REFERENCES")
    return act(
        table, f"ADD COLUMN {column.name.text} {written}{collation}{f' {references.text}' if references else ''}"
    )


def _add_rewrites(context: Context) -> Iterator[Trouble]:
    for table, action in actions(context, AddColumn):
        column = action.column
        default, key = column.get("DEFAULT"), context.catalog.table(table).key
        safe: Safe = ()
        if column.has("STORED"):
            why, safe = "computes it for every row", _stored(table, column, key)
        elif column.has("IDENTITY") or column.type.lower() in _SERIAL:
            why, safe = "numbers every row", _numbered(table, column, key)
        elif default is not None and may_be_volatile(default.expression):
            why, safe = f"asks {default.expression} for every row", _defaulted(table, column, key)
        elif domain := context.catalog.domains.get(column.type.lower()):
            if not domain.has("CHECK", "NOT NULL"):
                continue
            why, safe = f"checks the domain {column.type} for every row", _of_domain(table, column, domain)
        else:
            continue
        yield Trouble(
            f"Adding {column.name.text} {why}: {table.text} is rewritten, and nobody reads or writes it meanwhile.",
            safe,
            action.start,
        )


def _defaulted(table: Name, column: Column, key: str) -> Safe:
    default = column.get("DEFAULT")
    assert default is not None
    name = column.name.text
    add = one(_plain(table, column, column.type), act(table, f"ALTER COLUMN {name} SET DEFAULT {default.expression}"))
    fill = outside(backfill.update(table, key, f"{name} = DEFAULT", f"{name} IS NULL"))
    return (add, fill, *(replacement.validated_not_null(table, column.name) if column.has("NOT NULL") else ()))


def _numbered(table: Name, column: Column, key: str) -> Safe:
    name, sequence = column.name.text, table.beside(table.derived(column.name.name, "seq"))
    written = _SERIAL.get(column.type.lower(), column.type)
    literal = sequence.replace("'", "''")
    add = one(
        f"CREATE SEQUENCE {sequence} AS {written};",
        _plain(table, column, written),
        act(table, f"ALTER COLUMN {name} SET DEFAULT nextval('{literal}')"),
        f"ALTER SEQUENCE {sequence} OWNED BY {table.text}.{name};",
    )
    fill = outside(backfill.update(table, key, f"{name} = DEFAULT", f"{name} IS NULL"))
    return (add, fill, *replacement.validated_not_null(table, column.name))


def _stored(table: Name, column: Column, key: str) -> Safe:
    stored = column.get("STORED")
    assert stored is not None
    name, trigger = column.name.text, table.derived(column.name.name, "compute")
    body = f"NEW.{name} := {replacement.of_new_row(table, stored.expression)};"
    add = one(
        _plain(table, column, column.type),
        *replacement.triggered(table, trigger, table.beside(trigger), body),
    )
    condition = f"{name} IS DISTINCT FROM {operand(stored.expression)}"
    return (add, outside(backfill.update(table, key, f"{name} = {stored.expression}", condition)))


def _of_domain(table: Name, column: Column, domain: Column) -> Safe:
    name, default = column.name.text, column.get("DEFAULT")
    checks = [constraint.expression for constraint in domain.constraints if constraint.kind == "CHECK"]
    names = [table.derived(column.name.name, "check", *([str(n)] if n else [])) for n in range(len(checks))]
    add = one(
        _plain(table, column, f"{domain.type} {default.text if default else ''}".rstrip()),
        *(
            act(table, f"ADD CONSTRAINT {check} CHECK ({replaced(expression, 'value', name)}) NOT VALID")
            for check, expression in zip(names, checks, strict=True)
        ),
    )
    validate = [one(*(act(table, f"VALIDATE CONSTRAINT {check}") for check in names))] if names else []
    return (add, *validate)


def _add_required(context: Context) -> Iterator[Trouble]:
    for table, action in actions(context, AddColumn):
        column = action.column
        default = column.get("DEFAULT")
        has_value = column.has("STORED", "VIRTUAL", "IDENTITY") or column.type.lower() in _SERIAL
        is_null = default is not None and default.expression.upper() == "NULL"
        if not column.has("NOT NULL") or has_value or (default is not None and not is_null):
            continue
        kind = types.read(column.type)
        zero = _ZERO.get(kind.name) if kind is not None else None
        collation = f" COLLATE {column.collation}" if column.collation else ""
        definition = f"{column.name.text} {column.type}{collation}"
        if zero is not None:
            definition += f" DEFAULT {zero} NOT NULL"
        yield Trouble(
            f"Adding {column.name.text} as NOT NULL without a default fails where {table.text} has rows, and running "
            "code that does not know it cannot add any."
            + (" Give old rows a value." if zero is not None else " Make it NOT NULL once every row has a value."),
            (one(act(table, f"ADD COLUMN {definition}")),),
            action.start,
        )


def _change_type(context: Context) -> Iterator[Trouble]:
    for name, action in actions(context, AlterType):
        table = context.catalog.table(name)
        old = table.types.get(action.column.name)
        same_values = types.is_free(old, action.type) and not action.using
        checks = table.checks_on(action.column.name) if types.read(old or "") != types.read(action.type) else []
        if same_values and not checks and not action.collation:
            continue
        kind = types.read(action.type)
        column, known = action.column, f"from {old} " if old else ""
        new = column.derived(*(kind.name.split()[:1] if kind else ["new"]))
        collation = f" COLLATE {action.collation}" if action.collation else ""
        value = action.using or column.text
        what = "rewrites" if old else "may rewrite"
        if same_values:
            what = f"looks again at {' and '.join(checks)} in every row of" if checks else "builds the indexes anew of"
        yield Trouble(
            f"Changing {column.text} {known}to {action.type} {what} {name.text}, and nobody reads or writes it "
            f"meanwhile.{'' if old else ' (No file tells its present type.)'} Indexes and constraints of the old "
            "column are wanted on the new one too.",
            replacement.files(name, table, column, new, written=action.type + collation, value=value),
            action.start,
        )


def _set_not_null(context: Context) -> Iterator[Trouble]:
    for name, action in actions(context, SetNotNull):
        table, column = context.catalog.table(name), action.column
        if column.name in table.not_null or table.proves_not_null(column.name):
            continue
        yield Trouble(
            f"SET NOT NULL looks at every row of {name.text}, and nobody reads or writes it meanwhile. "
            f"A validated CHECK ({column.text} IS NOT NULL) saves it that.",
            replacement.validated_not_null(name, column),
            action.start,
        )


RULES = (
    Rule(
        "add-column-rewrite",
        "error",
        "`ADD COLUMN` with a volatile default, `serial`, identity, `GENERATED ... STORED`, or of a domain with checks",
        "Add it plain, set the default for new rows, then backfill",
        _add_rewrites,
    ),
    Rule(
        "add-column-required",
        "error",
        "`ADD COLUMN ... NOT NULL` without a default",
        "`ADD COLUMN ... DEFAULT value NOT NULL`",
        _add_required,
    ),
    Rule(
        "change-column-type",
        "error",
        "`ALTER COLUMN ... TYPE`, unless the old values stay as they are",
        "A new column, kept in step by a trigger; backfill; drop the old one later",
        _change_type,
    ),
    Rule(
        "set-not-null",
        "error",
        "`SET NOT NULL` without a validated `CHECK (... IS NOT NULL)`",
        "`ADD CONSTRAINT ... CHECK ... NOT VALID`; in the next file `VALIDATE`, `SET NOT NULL`",
        _set_not_null,
    ),
)

"""What running code would miss: dropped and renamed columns, tables and other objects. Expand, then contract."""

from collections.abc import Iterator

from migrations.lint import replacement
from migrations.lint.finding import Safe
from migrations.lint.nodes import Action, Create, Drop, DropColumn, Rename, RenameColumn, RenameTable, SetSchema
from migrations.lint.rule import LATER, Context, Rule, Trouble, act, actions, allowed, one, text_of
from migrations.lint.syntax import Name, quoted

_OBJECTS = (
    *("VIEW", "MATERIALIZED VIEW", "FUNCTION", "PROCEDURE", "ROUTINE", "AGGREGATE", "TYPE", "DOMAIN", "SEQUENCE"),
    *("SCHEMA", "FOREIGN TABLE", "EXTENSION", "DATABASE"),
)


def _drop_column(context: Context) -> Iterator[Trouble]:
    for table, action in actions(context, DropColumn):
        column = action.column.text
        safe = []
        if action.column.name in context.catalog.table(table).not_null:
            safe.append(
                one(act(table, f"ALTER COLUMN {column} DROP NOT NULL"), when="with the code that leaves it out")
            )
        drop = allowed("drop-column", f"no running code names {column} any more", act(table, text_of(context, action)))
        yield Trouble(
            f"Code that is still running names {table.text}.{column}, and fails from this moment. Deploy code that "
            "does not name it first, drop it in a later deploy, and say so. What it holds is lost.",
            (*safe, one(drop, when=f"in a later deploy, {LATER}")),
            action.start,
        )


def _drop_table(context: Context) -> Iterator[Trouble]:
    drop = context.node
    if not isinstance(drop, Drop) or drop.kind != "TABLE":
        return
    old = [name.text for name in drop.names if not context.catalog.is_new(name)]
    if old:
        names = ", ".join(old)
        sql = allowed("drop-table", f"no running code reads or writes {names} any more", _whole(context))
        yield Trouble(
            f"Code that is still running uses {names}, and fails from this moment. Deploy code that does not first, "
            "drop it in a later deploy, and say so. Its rows are lost.",
            (one(sql, when=f"in a later deploy, {LATER}"),),
        )


def _rename_column(context: Context) -> Iterator[Trouble]:
    for name, action in actions(context, RenameColumn):
        table, column = context.catalog.table(name), action.column
        written = table.types.get(column.name)
        safe = replacement.files(name, table, column, action.to.text, written=written or "text", value=column.text)
        yield Trouble(
            f"Code that is still running names {name.text}.{column.text}, and fails from this moment. Keep both until "
            "none does; indexes and constraints of the old one are wanted on the new one too."
            + ("" if written else f" No file tells the type of {column.text}: put it where text stands."),
            safe,
            action.start,
        )


def _rename_table(context: Context) -> Iterator[Trouble]:
    for table, action in actions(context, Action):
        if isinstance(action, RenameTable):
            new, text = table.beside(action.to.text), action.to.text
        elif isinstance(action, SetSchema):
            new, text = f"{action.schema.text}.{quoted(table.name)}", "another schema"
        else:
            continue
        if _keeps_a_view(context, table):
            continue
        yield Trouble(
            f"Code that is still running names {table.text}, and fails from this moment: it knows nothing of {text}. "
            "Leave a view under the old name (with the same GRANTs) until none does.",
            _with_a_view(act(table, text_of(context, action)), table, new),
            action.start,
        )


def _keeps_a_view(context: Context, old: Name) -> bool:
    """Tell whether the same transaction makes a view of the old name, with which old code goes on."""
    nodes = (step.node for step in context.after)
    made = any(isinstance(node, Create) and node.kind == "VIEW" and node.name.is_same(old) for node in nodes)
    return context.transactional and made


def _with_a_view(moved: str, old: Name, new: str) -> Safe:
    view = f"CREATE VIEW {old.text} WITH (security_invoker = true) AS SELECT * FROM {new};"  # noqa: S608 - shown, never run
    drop = allowed("drop-object", f"no running code names {old.text} any more", f"DROP VIEW {old.text};")
    return (one(moved, view), one(drop, when=f"in a later deploy, {LATER}"))


def _drop_object(context: Context) -> Iterator[Trouble]:
    drop = context.node
    if not isinstance(drop, Drop) or drop.kind not in _OBJECTS:
        return
    old = [name.text for name in drop.names if not context.catalog.is_new(name, drop.kind)]
    if old:
        names = ", ".join(old)
        sql = allowed("drop-object", f"no running code uses {names} any more", _whole(context))
        yield Trouble(
            f"Code that is still running may use {names}, and would fail from this moment. Deploy code that does not "
            "first, drop it in a later deploy, and say so.",
            (one(sql, when=f"in a later deploy, {LATER}"),),
        )


def _rename_object(context: Context) -> Iterator[Trouble]:
    rename = context.node
    if not isinstance(rename, Rename) or context.catalog.is_new(rename.name, rename.kind):
        return
    old = rename.name
    if rename.kind == "VIEW":
        if _keeps_a_view(context, old):
            return
        new = f"{rename.to.text}.{quoted(old.name)}" if rename.moves else old.beside(rename.to.text)
        safe, advice = _with_a_view(_whole(context), old, new), "Leave a view under the old name until none does."
    else:
        safe = (one(allowed("rename-object", f"no running code names {old.text}", _whole(context))),)
        advice = "Make a second one beside it, and drop the old one in a later deploy."
    yield Trouble(f"Code that is still running names {old.text}, and fails from this moment. {advice}", safe)


def _whole(context: Context) -> str:
    return f"{context.statement.text};"


RULES = (
    Rule(
        "drop-column",
        "error",
        "`DROP COLUMN`",
        "First deploy code that does not name it; drop it later, with the reason",
        _drop_column,
    ),
    Rule(
        "drop-table",
        "error",
        "`DROP TABLE`",
        "First deploy code that does not use it; drop it later, with the reason",
        _drop_table,
    ),
    Rule(
        "rename-column",
        "error",
        "`RENAME COLUMN`",
        "A second column, kept in step by a trigger; backfill; drop the old one later",
        _rename_column,
    ),
    Rule(
        "rename-table",
        "error",
        "`ALTER TABLE ... RENAME TO` or `SET SCHEMA`",
        "In the same file, a view under the old name",
        _rename_table,
    ),
    Rule(
        "drop-object",
        "error",
        "`DROP` of a view, function, type, domain, sequence, schema, extension",
        "First deploy code that does not use it; drop it later, with the reason",
        _drop_object,
    ),
    Rule(
        "rename-object",
        "error",
        "`RENAME TO` or `SET SCHEMA` of a view, type, function, sequence, domain, schema",
        "A view under the old name, in the same file; of others, a second one beside it",
        _rename_object,
    ),
)

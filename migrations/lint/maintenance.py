"""What writes a whole table or view anew, and keeps everybody off it meanwhile."""

from collections.abc import Iterator

from migrations.lint.nodes import Action, Maintain
from migrations.lint.rule import Context, Rule, Trouble, act, actions, allowed, one, outside, text_of
from migrations.lint.syntax import Name

_REWRITES = (
    ("SET", "TABLESPACE"),
    ("SET", "LOGGED"),
    ("SET", "UNLOGGED"),
    ("SET", "ACCESS", "METHOD"),
    ("ALTER", "SET", "EXPRESSION"),
)


def _rewrite(context: Context) -> Iterator[Trouble]:
    node = context.node
    if isinstance(node, Maintain) and node.kind in ("VACUUM FULL", "CLUSTER"):
        old = [name for name in node.names if not context.catalog.is_new(name)]
        if old or not node.names:
            yield _of_whole(node.kind, old)
    for table, action in actions(context, Action):
        if any(action.words[: len(words)] == words for words in _REWRITES):
            text = text_of(context, action)
            yield Trouble(
                f"{text} rewrites {table.text}, and nobody reads or writes it meanwhile. There is no other way: do it "
                "while the table is small or the site is quiet, and say so.",
                (one(allowed("rewrite-table", f"{table.text} is small", act(table, text))),),
                action.start,
            )


def _of_whole(kind: str, tables: list[Name]) -> Trouble:
    names = " and ".join(name.text for name in tables) or "every table"
    vacuums = [f"VACUUM (ANALYZE) {name.text};" for name in tables] or ["VACUUM (ANALYZE);"]
    return Trouble(
        f"{kind} rewrites {names}, and nobody reads or writes meanwhile. VACUUM makes the room of dead rows free for "
        "new ones; the extension pg_repack gives it back to the disk while the site goes on.",
        (outside(*vacuums),),
    )


def _refresh(context: Context) -> Iterator[Trouble]:
    node = context.node
    if not isinstance(node, Maintain) or node.kind != "REFRESH" or node.concurrently:
        return
    (view,) = node.names
    if not context.catalog.is_new(view):
        yield Trouble(
            f"REFRESH MATERIALIZED VIEW {view.text}: nobody reads it meanwhile. CONCURRENTLY keeps "
            "nobody off, and needs a unique index.",
            (one(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {view.text};"),),
        )


RULES = (
    Rule(
        "rewrite-table",
        "error",
        "`VACUUM FULL`, `CLUSTER`, `SET TABLESPACE`, `SET LOGGED`, `SET UNLOGGED`, `SET ACCESS METHOD`, "
        "`SET EXPRESSION`",
        "`VACUUM (ANALYZE)` in a file with `-- transaction: none`",
        _rewrite,
    ),
    Rule(
        "refresh-not-concurrent",
        "error",
        "`REFRESH MATERIALIZED VIEW` without `CONCURRENTLY`",
        "`REFRESH MATERIALIZED VIEW CONCURRENTLY`",
        _refresh,
    ),
)

"""Indexes: built, dropped and built anew while the site goes on."""

from collections.abc import Iterator

from migrations.lint.finding import Safe, SafeFile
from migrations.lint.nodes import CreateIndex, Drop, Maintain
from migrations.lint.rule import Context, Rule, Trouble, outside
from migrations.lint.syntax import Cursor, Name, folded


def name_of(index: CreateIndex) -> str:
    """Give its name; where it has none, one like the server would give."""
    if index.name is not None:
        return index.name.text
    columns = [_column_of(item) for item in index.items]
    return index.table.derived(*columns, "idx")


def _column_of(item: str) -> str:
    cursor = Cursor(item)
    token = cursor.advance()
    is_name = token.kind == "word" or token.text.endswith('"')
    return folded(token.text) if is_name else "expr"  # a column, or the function of an expression


def concurrently(index: CreateIndex) -> str:
    """Write it as it is built while the site goes on."""
    unique = "UNIQUE " if index.unique else ""
    return f"CREATE {unique}INDEX CONCURRENTLY IF NOT EXISTS {name_of(index)} {index.definition};"


def _create(context: Context) -> Iterator[Trouble]:
    index = context.node
    if not isinstance(index, CreateIndex) or index.concurrently or context.catalog.is_new(index.table):
        return
    partitioned = context.catalog.table(index.table).partitioned
    if partitioned and index.only:
        return
    message = f"CREATE INDEX {name_of(index)}: nobody writes {index.table.text} while it is built."
    if partitioned:
        safe: Safe = (_of_partitions(index),)
        message += " A partitioned table's index cannot be built CONCURRENTLY, but those of its partitions can."
    else:
        safe = (outside(concurrently(index)),)
    yield Trouble(message, safe)


def _of_partitions(index: CreateIndex) -> SafeFile:
    unique = "UNIQUE " if index.unique else ""
    name = name_of(index)
    only = index.definition.partition(index.table.text)[2]
    return SafeFile(
        f"CREATE {unique}INDEX IF NOT EXISTS {name} ON ONLY {index.table.text}{only};\n"
        "-- Then for each partition, in files with `-- transaction: none`, and each with its own names:\n"
        f"-- CREATE {unique}INDEX CONCURRENTLY IF NOT EXISTS partition_idx ON partition{only};\n"
        f"-- ALTER INDEX {name} ATTACH PARTITION partition_idx;"
    )


def _drop(context: Context) -> Iterator[Trouble]:
    drop = context.node
    if not isinstance(drop, Drop) or drop.kind != "INDEX" or drop.concurrently:
        return
    old = [name for name in drop.names if not context.catalog.is_new(name)]
    if old:
        names = " and ".join(name.text for name in old)
        tables = {table.text for name in old if (table := context.catalog.indexes.get(name.name))}
        yield Trouble(
            f"DROP INDEX {names} waits for everybody who uses {' and '.join(sorted(tables)) or 'the table'}, and keeps "
            "everybody else waiting.",
            (outside(*(f"DROP INDEX CONCURRENTLY IF EXISTS {name.text};" for name in old)),),
        )


def _reindex(context: Context) -> Iterator[Trouble]:
    node = context.node
    if not isinstance(node, Maintain) or node.kind != "REINDEX" or node.concurrently or node.what == "SYSTEM":
        return
    if any(context.catalog.is_new(name) for name in node.names):
        return
    what = _object(node)
    yield Trouble(
        f"REINDEX {what}: nobody writes the table, nor reads it by that index, while it is built anew.",
        (outside(f"REINDEX {node.what} CONCURRENTLY{f' {node.names[0].text}' if node.names else ''};"),),
    )


def _object(node: Maintain) -> str:
    names: list[Name] = list(node.names)
    return " ".join([node.what, *(name.text for name in names)])


RULES = (
    Rule(
        "index-not-concurrent",
        "error",
        "`CREATE INDEX` without `CONCURRENTLY` on a table that the file does not create",
        "`CREATE INDEX CONCURRENTLY IF NOT EXISTS` in a file with `-- transaction: none`",
        _create,
    ),
    Rule(
        "drop-index-not-concurrent",
        "error",
        "`DROP INDEX` without `CONCURRENTLY`",
        "`DROP INDEX CONCURRENTLY IF EXISTS` in a file with `-- transaction: none`",
        _drop,
    ),
    Rule(
        "reindex-not-concurrent",
        "error",
        "`REINDEX` without `CONCURRENTLY`",
        "`REINDEX ... CONCURRENTLY` in a file with `-- transaction: none`",
        _reindex,
    ),
)

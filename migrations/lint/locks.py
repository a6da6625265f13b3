"""Which tables a statement takes ACCESS EXCLUSIVE on: nobody reads or writes them until the transaction ends.

From the manual (13.3, and the page of each command); tests/migrations/test_lint_claims.py asks the server.
"""

from collections.abc import Iterator

from migrations.lint.nodes import (
    Action,
    AddConstraint,
    AlterTable,
    Create,
    CreateTable,
    Drop,
    Maintain,
    Node,
    Rename,
    Validate,
)
from migrations.lint.syntax import Name

# The beginnings of actions of ALTER TABLE that make do with less.
_LESS = (
    ("SET", "WITHOUT", "CLUSTER"),
    ("CLUSTER", "ON"),
    ("ATTACH", "PARTITION"),
    ("ENABLE", "TRIGGER"),
    ("ENABLE", "ALWAYS", "TRIGGER"),
    ("ENABLE", "REPLICA", "TRIGGER"),
    ("DISABLE", "TRIGGER"),
)
_DROPPED = ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE")


def access_exclusive(node: Node, indexes: dict[str, Name]) -> Iterator[Name]:
    """List the tables; `indexes` tells those of the indexes that the files made."""
    match node:
        case AlterTable(table=table, actions=actions) if any(_is_exclusive(action) for action in actions):
            yield table
        case CreateTable(parent=Name() as parent):
            yield parent
        case Create(kind="POLICY" | "RULE", table=Name() as table):
            yield table
        case Drop(kind="INDEX", names=names, concurrently=False):
            yield from (indexes.get(name.name, name) for name in names)
        case Drop(table=Name() as table):
            yield table
        case Drop(kind=kind, names=names) if kind in _DROPPED:
            yield from names
        case Rename(kind="VIEW" | "MATERIALIZED VIEW", name=name):
            yield name
        case Maintain(kind="TRUNCATE" | "CLUSTER" | "VACUUM FULL", names=names):
            yield from names
        case Maintain(kind="REFRESH", names=names, concurrently=False):
            yield from names
        case Maintain(kind="LOCK", names=names, what="ACCESS EXCLUSIVE"):
            yield from names


def _is_exclusive(action: Action) -> bool:
    if isinstance(action, Validate):
        return False
    if isinstance(action, AddConstraint):
        return action.constraint.kind != "FOREIGN KEY"
    words = action.words
    if "DETACH" in words[:1]:
        return "CONCURRENTLY" not in words
    is_parameter = words in (("SET",), ("RESET",))  # SET (fillfactor = 70)
    of_a_column = words[:1] == ("ALTER",) and (words[-1:] == ("SET",) or "STATISTICS" in words)
    return not (is_parameter or of_a_column or any(words[: len(less)] == less for less in _LESS))

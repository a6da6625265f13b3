"""The way back: which statements have one, and what it is."""

from collections.abc import Iterator, Sequence

from migrations.lint.catalog import Catalog
from migrations.lint.indexes import name_of
from migrations.lint.nodes import (
    Action,
    AddColumn,
    AddConstraint,
    AlterTable,
    Create,
    CreateDomain,
    CreateIndex,
    CreateTable,
    DropNotNull,
    Node,
    Rename,
    RenameColumn,
    RenameTable,
    SetNotNull,
)
from migrations.lint.rule import Step, act
from migrations.lint.syntax import Name

# They need their arguments or their table to be dropped by name.
_BY_NAME = (
    "VIEW",
    "MATERIALIZED VIEW",
    "TYPE",
    "SEQUENCE",
    "SCHEMA",
    "EXTENSION",
    "FUNCTION",
    "PROCEDURE",
    "STATISTICS",
)


def inverse(steps: Sequence[Step], *, transactional: bool) -> list[str]:
    """Write the statements that take these back, the last one first; nothing for those that have no way back."""
    catalog = Catalog()
    found: list[str] = []
    for step in steps:
        if not _within_new(step.node, catalog):
            found = [*_of(step.node, transactional=transactional), *found]
        catalog.apply(step.node)
    return found


def _within_new(node: Node, catalog: Catalog) -> bool:
    """Tell whether it goes with a table that the same file makes."""
    match node:
        case AlterTable(table=table) | CreateIndex(table=table) | Create(table=Name() as table):
            return catalog.is_new(table)
    return False


def _of(node: Node, *, transactional: bool) -> Iterator[str]:
    exists = "" if transactional else "IF EXISTS "
    match node:
        case CreateTable(table=table):
            yield f"DROP TABLE {exists}{table.text};"
        case CreateIndex(concurrently=True):
            yield f"DROP INDEX CONCURRENTLY IF EXISTS {node.table.beside(_last(name_of(node)))};"
        case CreateIndex():
            yield f"DROP INDEX {exists}{node.table.beside(_last(name_of(node)))};"
        case CreateDomain(name=name):
            yield f"DROP DOMAIN {exists}{name.text};"
        case Create(kind="TRIGGER" | "POLICY" | "RULE" as kind, name=name, table=Name() as table):
            yield f"DROP {kind} {exists}{name.text} ON {table.text};"
        case Create(kind=kind, name=name, replace=False) if kind in _BY_NAME:
            yield f"DROP {kind} {exists}{name.text};"
        case Rename(kind=kind, name=name, to=to, moves=False):
            yield f"ALTER {kind} {name.beside(to.text)} RENAME TO {_last(name.text)};"
        case AlterTable(table=table, actions=actions):
            for action in reversed(actions):
                yield from _of_action(table, action)


def _of_action(table: Name, action: Action) -> Iterator[str]:
    match action:
        case AddColumn(column=column):
            yield act(table, f"DROP COLUMN {column.name.text}")
        case AddConstraint(constraint=constraint) if constraint.name is not None:
            yield act(table, f"DROP CONSTRAINT {constraint.name.text}")
        case SetNotNull(column=name):
            yield act(table, f"ALTER COLUMN {name.text} DROP NOT NULL")
        case DropNotNull(column=name):
            yield act(table, f"ALTER COLUMN {name.text} SET NOT NULL")
        case RenameColumn(column=name, to=to):
            yield act(table, f"RENAME COLUMN {to.text} TO {name.text}")
        case RenameTable(to=to):
            yield f"ALTER TABLE {table.beside(to.text)} RENAME TO {_last(table.text)};"


def _last(text: str) -> str:
    return text.rpartition(".")[2] if not text.endswith('"') else text

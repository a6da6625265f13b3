"""What a rule is, and what it is given: one statement, with the file around it and what the files before say."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from migrations.files import Migration
from migrations.lint.catalog import Catalog
from migrations.lint.finding import Level, Safe, SafeFile
from migrations.lint.nodes import Action, AlterTable, Node, Parsed
from migrations.lint.syntax import Name, flat
from migrations.statements import Statement

LATER = "once no running code needs it"


@dataclass(frozen=True)
class Step:
    """A statement with its parts, among those of its file."""

    statement: Statement
    parsed: Parsed

    @property
    def node(self) -> Node:
        """Give its parts."""
        return self.parsed.node


@dataclass(frozen=True)
class Context:
    """Where a rule stands: at `steps[index]`, with all that ran before it in `catalog`."""

    migration: Migration
    way: Literal["up", "down"]
    steps: Sequence[Step]
    index: int
    catalog: Catalog

    @property
    def statement(self) -> Statement:
        """Give the statement under the rule."""
        return self.steps[self.index].statement

    @property
    def node(self) -> Node:
        """Give its parts."""
        return self.steps[self.index].node

    @property
    def transactional(self) -> bool:
        """Tell whether the file is one transaction."""
        return self.migration.transactional

    @property
    def before(self) -> Sequence[Step]:
        """Give the statements of the file before this one."""
        return self.steps[: self.index]

    @property
    def after(self) -> Sequence[Step]:
        """Give those behind it."""
        return self.steps[self.index + 1 :]


@dataclass(frozen=True)
class Trouble:
    """What a rule found in a statement; `start` is the offset in it."""

    message: str
    safe: Safe = ()
    start: int = 0


@dataclass(frozen=True)
class Rule:
    """One rule: `what` and `remedy` are its line in docs/MIGRATION_LINT.md."""

    id: str
    level: Level
    what: str
    remedy: str
    check: Callable[[Context], Iterable[Trouble]] = lambda _: ()
    ways: tuple[str, ...] = ("up",)


def act(table: Name, text: str) -> str:
    """Write an ALTER TABLE."""
    return f"ALTER TABLE {table.text} {text};"


def allowed(rule: str, because: str, sql: str) -> str:
    """Put before a statement the line that allows what cannot be made safe."""
    return f"-- lint: allow {rule} because {because}\n{sql}"


def one(*statements: str, when: str = "") -> SafeFile:
    """Make one transactional file of statements."""
    return SafeFile("\n".join(statements), when=when)


def outside(*statements: str, when: str = "") -> SafeFile:
    """Make a file that runs outside of a transaction."""
    return SafeFile("\n".join(statements), transactional=False, when=when)


def text_of(context: Context, action: Action) -> str:
    """Give an action of ALTER TABLE as the file writes it, on one line."""
    node = context.node
    assert isinstance(node, AlterTable)
    starts = [other.start for other in node.actions if other.start > action.start]
    text = context.statement.text[action.start : min(starts, default=None)]
    return flat(text).removesuffix(",").rstrip()


_A = TypeVar("_A", bound=Action)


def actions(context: Context, kind: type[_A]) -> Iterator[tuple[Name, _A]]:
    """List the actions of one kind, with their table, of an ALTER TABLE of a table that others use already."""
    node = context.node
    if isinstance(node, AlterTable) and not context.catalog.is_new(node.table):
        for action in node.actions:
            if isinstance(action, kind):
                yield node.table, action

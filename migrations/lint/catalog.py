"""What the files up to a statement say of tables: types, constraints, what is new in this file."""

from dataclasses import dataclass, field

from migrations.lint.nodes import (
    AddColumn,
    AddConstraint,
    AlterTable,
    AlterType,
    Column,
    Constraint,
    Create,
    CreateDomain,
    CreateIndex,
    CreateTable,
    Drop,
    DropColumn,
    DropConstraint,
    DropNotNull,
    Node,
    Rename,
    RenameColumn,
    RenameTable,
    SetNotNull,
    SetSchema,
    Validate,
)
from migrations.lint.syntax import Name, quoted, words_of

_RELATIONS = ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE", "INDEX")  # they share their names


@dataclass
class Table:
    """One table, as far as the files tell."""

    name: Name
    types: dict[str, str] = field(default_factory=dict)
    not_null: set[str] = field(default_factory=set)
    checks: dict[str, tuple[str, bool]] = field(default_factory=dict)  # name: expression, whether it is validated
    primary_key: tuple[str, ...] = ()
    partitioned: bool = False

    @property
    def key(self) -> str:
        """Give what tells its rows apart: a primary key of one column, else ctid."""
        return quoted(self.primary_key[0]) if len(self.primary_key) == 1 else "ctid"

    def proves_not_null(self, column: str) -> bool:
        """Tell whether a validated CHECK says that a column is not null."""
        wanted = [column, "is", "not", "null"]
        return any(valid and words_of(expression) == wanted for expression, valid in self.checks.values())

    def mentioned(self, expression: str) -> list[str]:
        """List the columns that an expression mentions, of those that the files tell."""
        words = words_of(expression)
        return [column for column in self.types if column in words]

    def checks_on(self, column: str) -> list[str]:
        """List the CHECK constraints that mention a column."""
        return [name for name, (expression, _) in self.checks.items() if column in words_of(expression)]


class Catalog:
    """The tables that the files have made so far."""

    def __init__(self) -> None:
        self._tables: list[Table] = []
        self._created: list[tuple[str, Name]] = []  # kind and name of what is new in this file
        self.indexes: dict[str, Name] = {}  # index: its table
        self.domains: dict[str, Column] = {}

    def begin_file(self) -> None:
        """Forget what is new: from here on others may use it."""
        self._created = []

    def table(self, name: Name) -> Table:
        """Give what is known of a table; an empty one where no file made it."""
        return next((table for table in self._tables if table.name.is_same(name)), Table(name))

    def is_new(self, name: Name, kind: str = "TABLE") -> bool:
        """Tell whether this file has made it, so that nobody else uses it yet."""
        return any(space == _space(kind) and created.is_same(name) for space, created in self._created)

    def _note(self, name: Name, kind: str = "TABLE") -> None:
        self._created.append((_space(kind), name))

    def apply(self, node: Node) -> None:
        """Note what a statement changes."""
        if isinstance(node, CreateTable):
            self._note(node.table)
            self._tables = [*self._others(node.table), _table_of(node)]
        elif isinstance(node, AlterTable):
            table = self._known(node.table)
            for action in node.actions:
                self._alter(table, action)
        elif isinstance(node, CreateIndex) and node.name is not None:
            self.indexes[node.name.name] = node.table
            if self.is_new(node.table):
                self._note(node.name)
        elif isinstance(node, CreateDomain):
            self.domains[node.name.name] = node.definition
        elif isinstance(node, Create) and not node.replace:
            self._note(node.name, node.kind)
        elif isinstance(node, Rename) and self.is_new(node.name, node.kind) and not node.moves:
            self._note(node.to, node.kind)
        elif isinstance(node, Drop) and node.kind == "TABLE":
            for name in node.names:
                self._tables = self._others(name)

    def _others(self, name: Name) -> list[Table]:
        return [table for table in self._tables if not table.name.is_same(name)]

    def _known(self, name: Name) -> Table:
        table = self.table(name)
        if table not in self._tables:
            self._tables.append(table)
        return table

    def _alter(self, table: Table, action: object) -> None:
        match action:
            case AddColumn(column=column):
                _add(table, column)
            case AddConstraint(constraint=constraint):
                _constrain(table, constraint)
            case Validate(constraint=name) if name.name in table.checks:
                table.checks[name.name] = (table.checks[name.name][0], True)
            case DropConstraint(constraint=name):
                table.checks.pop(name.name, None)
            case DropColumn(column=name):
                table.types.pop(name.name, None)
                table.not_null.discard(name.name)
            case AlterType(column=name, type=written):
                table.types[name.name] = written
            case SetNotNull(column=name):
                table.not_null.add(name.name)
            case DropNotNull(column=name):
                table.not_null.discard(name.name)
            case RenameColumn(column=name, to=to):
                if name.name in table.types:
                    table.types[to.name] = table.types.pop(name.name)
                if name.name in table.not_null:
                    table.not_null = table.not_null - {name.name} | {to.name}
            case RenameTable(to=to):
                if self.is_new(table.name):
                    self._note(to)
                table.name = Name(to.name, table.name.schema, to.text)
            case SetSchema(schema=schema):
                table.name = Name(table.name.name, schema.name, f"{schema.text}.{table.name.name}")
            case _:
                pass


def _space(kind: str) -> str:
    return "relation" if kind in _RELATIONS else kind


def _table_of(node: CreateTable) -> Table:
    table = Table(node.table, partitioned=node.partitioned)
    for column in node.columns:
        _add(table, column)
    for constraint in node.constraints:
        _constrain(table, constraint)
    return table


def _add(table: Table, column: Column) -> None:
    table.types[column.name.name] = column.type
    if column.has("NOT NULL", "PRIMARY KEY", "IDENTITY"):
        table.not_null.add(column.name.name)
    if column.has("PRIMARY KEY"):
        table.primary_key = (column.name.name,)
    for constraint in column.constraints:
        if constraint.kind == "CHECK":
            default = f"{table.name.name}_{column.name.name}_check"
            table.checks[constraint.name.name if constraint.name else default] = (constraint.expression, True)


def _constrain(table: Table, constraint: Constraint) -> None:
    if constraint.kind == "CHECK":
        name = constraint.name.name if constraint.name else f"{table.name.name}_check"
        table.checks[name] = (constraint.expression, not constraint.not_valid)
    elif constraint.kind == "PRIMARY KEY":
        table.primary_key = tuple(column.name for column in constraint.columns)
        table.not_null |= set(table.primary_key)
    elif constraint.kind == "NOT NULL" and not constraint.not_valid:
        table.not_null |= {column.name for column in constraint.columns}

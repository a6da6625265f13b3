"""The statements that lint knows by their parts, and nothing of the others but their words."""

from dataclasses import dataclass, field
from typing import Literal

from migrations.lint.syntax import Name

ConstraintKind = Literal["CHECK", "UNIQUE", "PRIMARY KEY", "FOREIGN KEY", "EXCLUDE", "NOT NULL"]
ColumnConstraintKind = Literal[
    "CHECK", "UNIQUE", "PRIMARY KEY", "REFERENCES", "NOT NULL", "NULL", "DEFAULT", "IDENTITY", "STORED", "VIRTUAL"
]


@dataclass(frozen=True)
class ColumnConstraint:
    """What follows the type of a column: `text` as written.

    `expression` of a check, default or generation; the table of REFERENCES; NULLS NOT DISTINCT of UNIQUE.
    """

    kind: ColumnConstraintKind
    text: str
    expression: str = ""
    name: Name | None = None


@dataclass(frozen=True)
class Column:
    """A column as CREATE TABLE or ADD COLUMN defines it."""

    name: Name
    type: str
    constraints: tuple[ColumnConstraint, ...] = ()
    collation: str = ""

    def has(self, *kinds: ColumnConstraintKind) -> bool:
        """Tell whether it has a constraint of one of these kinds."""
        return any(constraint.kind in kinds for constraint in self.constraints)

    def get(self, *kinds: ColumnConstraintKind) -> ColumnConstraint | None:
        """Give its first constraint of one of these kinds."""
        return next((constraint for constraint in self.constraints if constraint.kind in kinds), None)


@dataclass(frozen=True)
class Constraint:
    """A table constraint: `text` is its definition without its name and without NOT VALID.

    Of UNIQUE and PRIMARY KEY, `of_index` is what belongs to the index behind its columns, `tail` what does not.
    """

    kind: ConstraintKind
    text: str
    name: Name | None = None
    columns: tuple[Name, ...] = ()
    expression: str = ""
    references: Name | None = None
    not_valid: bool = False
    index: Name | None = None  # of USING INDEX
    included: tuple[Name, ...] = ()
    of_index: str = ""
    tail: str = ""


# -- what ALTER TABLE does; `start` is the offset in the statement ----------------------------------


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action of ALTER TABLE that no rule asks for by its parts; `words` are its first."""

    start: int = 0
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AddColumn(Action):
    """ADD COLUMN; `text` is the definition."""

    column: Column
    text: str
    if_not_exists: bool = False


@dataclass(frozen=True, kw_only=True)
class AddConstraint(Action):
    """ADD CONSTRAINT."""

    constraint: Constraint


@dataclass(frozen=True, kw_only=True)
class Validate(Action):
    """VALIDATE CONSTRAINT."""

    constraint: Name


@dataclass(frozen=True, kw_only=True)
class DropColumn(Action):
    """DROP COLUMN."""

    column: Name
    if_exists: bool = False


@dataclass(frozen=True, kw_only=True)
class DropConstraint(Action):
    """DROP CONSTRAINT."""

    constraint: Name
    if_exists: bool = False


@dataclass(frozen=True, kw_only=True)
class AlterType(Action):
    """ALTER COLUMN ... TYPE."""

    column: Name
    type: str
    collation: str = ""
    using: str = ""


@dataclass(frozen=True, kw_only=True)
class SetNotNull(Action):
    """ALTER COLUMN ... SET NOT NULL."""

    column: Name


@dataclass(frozen=True, kw_only=True)
class DropNotNull(Action):
    """ALTER COLUMN ... DROP NOT NULL."""

    column: Name


@dataclass(frozen=True, kw_only=True)
class RenameColumn(Action):
    """RENAME COLUMN."""

    column: Name
    to: Name


@dataclass(frozen=True, kw_only=True)
class RenameTable(Action):
    """RENAME TO."""

    to: Name


@dataclass(frozen=True, kw_only=True)
class SetSchema(Action):
    """SET SCHEMA."""

    schema: Name


# -- statements -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Other:
    """A statement that is known by its words only."""


@dataclass(frozen=True)
class CreateTable:
    """CREATE TABLE in all its forms; `parent` of PARTITION OF."""

    table: Name
    columns: tuple[Column, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    if_not_exists: bool = False
    partitioned: bool = False
    parent: Name | None = None


@dataclass(frozen=True)
class AlterTable:
    """ALTER TABLE with its actions; those that lint does not know by their parts are plain ones."""

    table: Name
    actions: tuple[Action, ...]
    if_exists: bool = False


@dataclass(frozen=True)
class CreateIndex:
    """CREATE INDEX; `definition` is the text from ON to the end."""

    table: Name
    definition: str
    items: tuple[str, ...]
    name: Name | None = None
    unique: bool = False
    concurrently: bool = False
    if_not_exists: bool = False
    only: bool = False


@dataclass(frozen=True)
class Drop:
    """DROP of any kind of object; `table` where it belongs to one."""

    kind: str
    names: tuple[Name, ...]
    concurrently: bool = False
    if_exists: bool = False
    table: Name | None = None


@dataclass(frozen=True)
class Create:
    """CREATE of an object that is no table and no index; `table` where it belongs to one."""

    kind: str
    name: Name
    if_not_exists: bool = False
    replace: bool = False
    table: Name | None = None


@dataclass(frozen=True)
class CreateDomain:
    """CREATE DOMAIN: `definition` has the base type and the constraints as a column has them."""

    name: Name
    definition: Column


@dataclass(frozen=True)
class Rename:
    """ALTER ... RENAME TO or SET SCHEMA of an object that is no table."""

    kind: str
    name: Name
    to: Name
    moves: bool = False


@dataclass(frozen=True)
class AddValue:
    """ALTER TYPE ... ADD VALUE; `value` is the constant as written."""

    type: Name
    value: str
    rest: str
    if_not_exists: bool = False


@dataclass(frozen=True)
class Change:
    """UPDATE or DELETE without WITH; `source` is what stands behind FROM or USING."""

    kind: Literal["UPDATE", "DELETE"]
    table: Name
    target: str  # the table as written, with its alias
    alias: str  # what the statement calls the table
    assignments: str = ""
    source: str = ""
    where: str = ""


@dataclass(frozen=True)
class Maintain:
    """VACUUM FULL, CLUSTER, REINDEX, REFRESH, TRUNCATE or LOCK; the tables or other names it names."""

    kind: Literal["VACUUM FULL", "CLUSTER", "REINDEX", "REFRESH", "TRUNCATE", "LOCK"]
    names: tuple[Name, ...] = ()
    concurrently: bool = False
    what: str = ""  # INDEX, TABLE, SCHEMA, ... of REINDEX; the mode of LOCK
    rest: str = ""


@dataclass(frozen=True)
class Setting:
    """SET or set_config(); `scope` is LOCAL, SESSION, or empty where nothing is said."""

    parameter: str
    scope: str = ""
    text: str = ""  # behind SET and its scope


Node = (
    Other
    | CreateTable
    | AlterTable
    | CreateIndex
    | CreateDomain
    | Create
    | Drop
    | Rename
    | AddValue
    | Change
    | Maintain
    | Setting
)


@dataclass(frozen=True)
class Parsed:
    """A statement and its parts; `known` unless something in it is beyond the reader."""

    node: Node = field(default_factory=Other)
    known: bool = True

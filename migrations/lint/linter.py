"""Run every rule over every statement, and weigh what the files allow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from migrations.files import Migration, Part
from migrations.lint import (
    allow,
    columns,
    constraints,
    indexes,
    maintenance,
    removal,
    rows,
    session,
    squawk,
    transactions,
    wayback,
)
from migrations.lint.allow import Allowance
from migrations.lint.catalog import Catalog
from migrations.lint.finding import Finding, SafeFile
from migrations.lint.parse import parse
from migrations.lint.rule import Context, Rule, Step
from migrations.lint.syntax import Unrecognised

NO_WAY_BACK = Rule(
    "no-way-back",
    "warning",
    "Nothing below `-- down`, where the change could be taken back",
    "The statements that take it back",
)
SYNTAX = Rule(
    "syntax",
    "error",
    "Squawk's parser cannot read the statement",
    "There is none: PostgreSQL will not read it either; where it does, say so",
)
ALLOW_RULES = (
    Rule(
        "allow-unused",
        "warning",
        "An allow line for something that was not found, or a rule that does not exist",
        "Without the line",
    ),
    Rule(
        "allow-without-reason",
        "warning",
        "A line `-- lint:` that is not `allow RULE because REASON`",
        "`-- lint: allow RULE because REASON`",
    ),
)
RULES: tuple[Rule, ...] = (
    *columns.RULES,
    *constraints.RULES,
    *indexes.RULES,
    *removal.RULES,
    *rows.RULES,
    *maintenance.RULES,
    *transactions.RULES,
    *session.RULES,
    NO_WAY_BACK,
    SYNTAX,
)


@dataclass
class _Side:
    """The way up or the way back of one file, while it is looked at."""

    migration: Migration
    way: Literal["up", "down"]
    part: Part
    steps: list[Step]
    allowances: list[Allowance]
    unread: set[int] = field(default_factory=set)  # indexes of statements that the rules could not read
    found: list[tuple[int | None, Finding]] = field(default_factory=list)  # with the index of the statement


def check(migrations: Sequence[Migration], *, before: Sequence[Migration] = ()) -> list[Finding]:
    """Look at migrations in their order; `before` are those ahead of them, which tell types and constraints.

    Gives what was found, in the order of files and lines, allowed ones too. Raises LocalEnvironmentError where Squawk
    is there and does not work.
    """
    catalog = Catalog()
    for migration in before:
        for statement in migration.up.statements:
            catalog.apply(parse(statement.text).node)
    sides = [side for migration in migrations for side in _sides_of(migration, catalog)]
    _ask_squawk(sides)
    return [finding for side in sides for finding in _weighed(side)]


def notices() -> list[str]:
    """Say what was not looked at."""
    if squawk.program() is not None:
        return []
    return ["Squawk is not installed here: its rules were not checked, only our own."]


def _sides_of(migration: Migration, catalog: Catalog) -> Iterator[_Side]:
    catalog.begin_file()
    up = _side(migration, "up")
    for index, step in enumerate(up.steps):
        _apply_rules(up, index, catalog)
        catalog.apply(step.node)
    down = _side(migration, "down")
    _look_for_a_way_back(up, down)
    for index in range(len(down.steps)):
        _apply_rules(down, index, catalog)
    yield from (up, down)


def _side(migration: Migration, way: Literal["up", "down"]) -> _Side:
    part = migration.up if way == "up" else migration.down
    steps = [Step(statement, parse(statement.text)) for statement in part.statements]
    head = _head(migration) if way == "up" else []
    unread = {index for index, step in enumerate(steps) if not step.parsed.known}
    return _Side(migration, way, part, steps, allow.read(part, part.statements, head), unread)


def _head(migration: Migration) -> list[str]:
    return migration.path.read_text("utf-8-sig").split("\n")[: migration.up.first_line - 1]


def _apply_rules(side: _Side, index: int, catalog: Catalog) -> None:
    context = Context(side.migration, side.way, side.steps, index, catalog)
    statement = context.statement
    for rule in RULES:
        if side.way not in rule.ways:
            continue
        try:
            for trouble in rule.check(context):
                line = statement.line + statement.text.count("\n", 0, trouble.start)
                finding = Finding(side.migration.path, line, rule.id, rule.level, trouble.message, trouble.safe)
                side.found.append((index, finding))
        except Unrecognised:
            side.unread.add(index)


def _look_for_a_way_back(up: _Side, down: _Side) -> None:
    if down.steps:
        return
    transactional = up.migration.transactional
    statements = wayback.inverse(up.steps, transactional=transactional)
    if statements:
        safe = (SafeFile("\n".join(statements), transactional, "below `-- down`"),)
        message = "It cannot be taken back: nothing stands below `-- down`."
        line = max(1, down.part.first_line)
        rule = NO_WAY_BACK
        down.found.append((None, Finding(up.migration.path, line, rule.id, rule.level, message, safe)))


# -- Squawk -----------------------------------------------------------------------------------------


def _ask_squawk(sides: Sequence[_Side]) -> None:
    sources = [squawk.Source([step.statement for step in side.steps], side.migration.transactional) for side in sides]
    for report in squawk.look(sources):
        side = sides[report.source]
        finding = _of_squawk(side, report)
        if finding is not None and (report.statement, finding) not in side.found:
            side.found.append((report.statement, finding))


def _of_squawk(side: _Side, report: squawk.Report) -> Finding | None:
    path = side.migration.path
    if report.rule == squawk.SYNTAX:
        already = any(i == report.statement and finding.rule == SYNTAX.id for i, finding in side.found)
        return None if already else Finding(path, report.line, SYNTAX.id, SYNTAX.level, f"{report.message}.")
    if side.way == "down":
        return None
    ours = squawk.OURS.get(report.rule)
    if ours is None:
        return Finding(path, report.line, report.rule, squawk.THEIRS.get(report.rule, "warning"), report.message)
    if report.statement not in side.unread:
        return None
    level = next(rule.level for rule in RULES if rule.id == ours)
    return Finding(path, report.line, ours, level, report.message)


# -- what the file allows ---------------------------------------------------------------------------


def _weighed(side: _Side) -> Iterator[Finding]:
    found = []
    for index, finding in side.found:
        reason = None
        for allowance in side.allowances:
            if allowance.is_complete and allowance.statement == index and allowance.rule == finding.rule:
                allowance.used = True
                reason = allowance.reason
        found.append(replace(finding, allowed=reason))
    unused, unreadable = ALLOW_RULES
    for allowance in side.allowances:
        if not allowance.is_complete:
            message = "It is not `-- lint: allow RULE because REASON`: without a reason nothing is allowed."
            found.append(Finding(side.migration.path, allowance.line, unreadable.id, unreadable.level, message))
        elif not allowance.used and not _is_for_squawk(allowance):
            found.append(Finding(side.migration.path, allowance.line, unused.id, unused.level, _why_unused(allowance)))
    yield from sorted(found, key=lambda finding: finding.line)


def _is_for_squawk(allowance: Allowance) -> bool:
    """Tell whether it may be of use where Squawk is installed, which is not here."""
    return squawk.program() is None and (allowance.rule in squawk.THEIRS or allowance.rule == SYNTAX.id)


def _why_unused(allowance: Allowance) -> str:
    if allowance.rule not in {rule.id for rule in RULES} | set(squawk.THEIRS):
        return f"There is no rule {allowance.rule}; docs/MIGRATION_LINT.md lists them."
    if allowance.statement is None and allowance.rule != NO_WAY_BACK.id:
        return f"It allows {allowance.rule}, and no statement follows it."
    return f"It allows {allowance.rule}, which was not found here. Remove it."

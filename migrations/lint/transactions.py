"""Transactions: what cannot run in one, what need not run outside of one, and what one should not hold together."""

from collections.abc import Iterator

from migrations.lint.finding import Safe
from migrations.lint.indexes import concurrently
from migrations.lint.locks import access_exclusive
from migrations.lint.nodes import (
    AddColumn,
    AddConstraint,
    AddValue,
    AlterTable,
    Create,
    CreateIndex,
    CreateTable,
    Drop,
    DropColumn,
    DropConstraint,
    Maintain,
    Rename,
    RenameColumn,
    RenameTable,
    SetSchema,
)
from migrations.lint.rule import Context, Rule, Step, Trouble, one, outside
from migrations.lint.syntax import Name
from migrations.statements import tokens

_OUTSIDE = (
    ("VACUUM",),
    ("CREATE", "DATABASE"),
    ("DROP", "DATABASE"),
    ("CREATE", "TABLESPACE"),
    ("DROP", "TABLESPACE"),
    ("ALTER", "SYSTEM"),
    ("CREATE", "SUBSCRIPTION"),
    ("DROP", "SUBSCRIPTION"),
)
# They may end a transaction themselves, or be better outside of one.
_EITHER = (("CALL",), ("DO",), ("SET",), ("RESET",), ("ANALYZE",))
_REPEATABLE_CREATES = ("SCHEMA", "SEQUENCE", "EXTENSION", "MATERIALIZED VIEW", "COLLATION", "STATISTICS")


def needs_outside(step: Step) -> bool:
    """Tell whether a statement cannot run in a transaction (the manual's page of each command), or should not."""
    words, node = step.statement.words, step.node
    match node:
        case CreateIndex(concurrently=True) | Drop(concurrently=True):
            return True
        case Maintain(kind="REINDEX"):
            return node.concurrently or node.what in ("SCHEMA", "DATABASE", "SYSTEM")
        case Maintain(kind="CLUSTER"):
            return not node.names
        case AlterTable(actions=actions):
            return any(
                action.words[:1] == ("DETACH",) and {"CONCURRENTLY", "FINALIZE"} & set(action.words)
                for action in actions
            )
    return step.statement.repeated or any(words[: len(first)] == first for first in _OUTSIDE)


def _in_transaction(context: Context) -> Iterator[Trouble]:
    step = context.steps[context.index]
    if not context.transactional or not needs_outside(step):
        return
    node, text = step.node, f"{step.statement.text};"
    if isinstance(node, CreateIndex):
        text = concurrently(node)
    elif isinstance(node, Drop) and not node.if_exists:
        text = _inserted(step.statement.text, "CONCURRENTLY", "IF EXISTS")
    yield Trouble("It cannot run in a transaction: put it into a file of its own.", (outside(text),))


def _not_needed(context: Context) -> Iterator[Trouble]:
    if context.transactional or context.index > 0:
        return
    for step in context.steps:
        words = step.statement.words
        if needs_outside(step) or isinstance(step.node, AddValue):
            return
        if any(words[: len(first)] == first for first in _EITHER):
            return
    yield Trouble(
        "Nothing in the file needs `-- transaction: none`: without that line, a failure leaves nothing behind.",
        (one(*(f"{step.statement.text};" for step in context.steps)),),
    )


def _not_repeatable(context: Context) -> Iterator[Trouble]:
    if context.transactional:
        return
    text = context.statement.text
    match context.node:
        case CreateIndex(if_not_exists=False, concurrently=True) as index:
            safe: Safe = (outside(concurrently(index)),)
        case CreateIndex(if_not_exists=False):
            safe = (outside(_inserted(text, "INDEX", "IF NOT EXISTS")),)
        case CreateTable(if_not_exists=False):
            safe = (one(_inserted(text, "TABLE", "IF NOT EXISTS")),)
        case Create(if_not_exists=False, replace=False, kind=kind):
            last = kind.split()[-1]
            repeatable = kind in _REPEATABLE_CREATES
            safe = (one(_inserted(text, last, "IF NOT EXISTS") if repeatable else f"{text};"),)
        case AddValue(if_not_exists=False):
            safe = (outside(_inserted(text, "VALUE", "IF NOT EXISTS")),)
        case Drop(if_exists=False, concurrently=True):
            safe = (outside(_inserted(text, "CONCURRENTLY", "IF EXISTS")),)
        case Drop(if_exists=False, kind=kind):
            safe = (one(_inserted(text, kind.split()[-1], "IF EXISTS")),)
        case AlterTable(actions=actions) if any(_fails_again(action) for action in actions):
            safe = (one(f"{text};"),)
        case Rename():
            safe = (one(f"{text};"),)
        case _ if context.statement.words[:1] == ("INSERT",) and "CONFLICT" not in context.statement.words:
            safe = (one(f"{text};"),)
        case _:
            return
    yield Trouble(
        "Outside of a transaction, a run that begins anew (the file was changed after a failure, or the way back was "
        "interrupted) fails here, on what was done already."
        + (" In a file that is one transaction nothing is left half done." if safe[0].transactional else ""),
        safe,
    )


def _fails_again(action: object) -> bool:
    match action:
        case AddColumn(if_not_exists=done) | DropColumn(if_exists=done) | DropConstraint(if_exists=done):
            return not done
        case AddConstraint() | RenameColumn() | RenameTable() | SetSchema():
            return True
    return False


def _inserted(text: str, behind: str, words: str) -> str:
    """Put words behind the first mention of another one."""
    for token in tokens(text):
        if token.kind == "word" and token.text.upper() == behind:
            return f"{text[: token.end]} {words}{text[token.end :]};"
    return f"{text};"


def _several_tables(context: Context) -> Iterator[Trouble]:
    if not context.transactional:
        return
    before = [name for step in context.before for name in _locked(context, step)]
    here = list(_locked(context, context.steps[context.index]))
    first = next(iter(before or here), None)
    # Once is enough: at the statement that takes the second table.
    if first is None or any(not name.is_same(first) for name in before) or all(name.is_same(first) for name in here):
        return
    second = next(name for name in here if not name.is_same(first))
    yield Trouble(
        f"{first.text} stays locked for everybody while this waits for {second.text}; a transaction that uses both may "
        "deadlock with it. One file for each table holds one lock at a time.",
        _one_file_each(context, first) if before else (),
    )


def _locked(context: Context, step: Step) -> Iterator[Name]:
    for name in access_exclusive(step.node, context.catalog.indexes):
        if not context.catalog.is_new(name):
            yield name


def _one_file_each(context: Context, first: Name) -> Safe:
    """Part the file where the second table begins, and again at each further one."""
    files: list[list[str]] = [[]]
    current = first
    for step in context.steps:
        locked = next(_locked(context, step), current)
        if not locked.is_same(current):
            files.append([])
            current = locked
        files[-1].append(f"{step.statement.text};")
    return tuple(one(*statements) for statements in files)


def _enum_value(context: Context) -> Iterator[Trouble]:
    if not context.transactional:
        return
    added = [step for step in context.before if isinstance(step.node, AddValue)]
    for step in added:
        assert isinstance(step.node, AddValue)
        if context.catalog.is_new(step.node.type, "TYPE"):
            continue
        used = any(token.text == step.node.value for token in tokens(context.statement.text))
        if used and not isinstance(context.node, AddValue):
            yield Trouble(
                f"The value {step.node.value} of {step.node.type.text} cannot be used in the transaction that adds it "
                "(SQLSTATE 55P04).",
                (one(f"{step.statement.text};"), one(f"{context.statement.text};", when="in the next file")),
            )
            return


RULES = (
    Rule(
        "needs-no-transaction",
        "error",
        "`CONCURRENTLY`, `VACUUM` or the like in a file that is one transaction",
        "A file of its own with `-- transaction: none`",
        _in_transaction,
        ways=("up", "down"),
    ),
    Rule(
        "transaction-none-not-needed",
        "warning",
        "`-- transaction: none` where no statement needs it",
        "The same file without that line",
        _not_needed,
    ),
    Rule(
        "not-repeatable",
        "warning",
        "With `-- transaction: none`: a statement that fails when it is run again",
        "`IF NOT EXISTS`, `IF EXISTS`; or a file that is one transaction",
        _not_repeatable,
        ways=("up", "down"),
    ),
    Rule(
        "several-tables-locked",
        "warning",
        "One transaction takes `ACCESS EXCLUSIVE` on several tables",
        "One file for each table",
        _several_tables,
    ),
    Rule(
        "enum-value-in-use",
        "error",
        "A value that `ALTER TYPE ... ADD VALUE` added is used in the same transaction",
        "`ADD VALUE` in a file before",
        _enum_value,
        ways=("up", "down"),
    ),
)

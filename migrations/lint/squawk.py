"""Squawk, a second pair of eyes: a linter with a parser of its own (PyPI squawk-cli, a development dependency).

Where this package and Squawk look for the same, this package decides, unless it could not read the statement: then
Squawk's word stands, without a safe form. Its other rules are reported as they are, or left out for a reason.
"""

import json
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from migrations.lint.finding import Level
from migrations.statements import Statement, tokens
from shared.errors import LocalEnvironmentError

VERSION = "16.0"  # the oldest server that migrations are for
TIMEOUT = 60.0  # seconds

# Its rules that a rule of ours answers.
OURS: Mapping[str, str] = {
    "adding-field-with-default": "add-column-rewrite",
    "adding-foreign-key-constraint": "add-foreign-key",
    "adding-not-nullable-field": "set-not-null",
    "adding-required-field": "add-column-required",
    "adding-serial-primary-key-field": "add-primary-key",
    "ban-concurrent-index-creation-in-transaction": "needs-no-transaction",
    "ban-drop-column": "drop-column",
    "ban-drop-database": "drop-object",
    "ban-drop-domain": "drop-object",
    "ban-drop-extension": "drop-object",
    "ban-drop-function": "drop-object",
    "ban-drop-schema": "drop-object",
    "ban-drop-sequence": "drop-object",
    "ban-drop-table": "drop-table",
    "ban-drop-type": "drop-object",
    "ban-drop-view": "drop-object",
    "ban-set-schema": "rename-table",
    "ban-truncate-cascade": "truncate",
    "changing-column-type": "change-column-type",
    "constraint-missing-not-valid": "add-check",
    "disallowed-unique-constraint": "add-unique",
    "prefer-robust-stmts": "not-repeatable",
    "renaming-column": "rename-column",
    "renaming-object": "rename-object",
    "renaming-table": "rename-table",
    "require-concurrent-index-creation": "index-not-concurrent",
    "require-concurrent-index-deletion": "drop-index-not-concurrent",
    "require-concurrent-partition-detach": "detach-partition",
    "require-concurrent-reindex": "reindex-not-concurrent",
}
# Those that are reported as they are.
THEIRS: Mapping[str, Level] = {
    "ban-alter-domain-with-add-constraint": "error",
    "ban-duplicate-column-assignments": "error",
    "identifier-too-long": "error",
}
# Those that are not asked for.
EXCLUDED: Mapping[str, str] = {
    "require-lock-timeout": "the runner sets it, and tries again",
    "require-statement-timeout": "the runner decides",
    "require-timeout-settings": "the runner sets them",
    "transaction-nesting": "BEGIN and COMMIT are refused when the file is read",
    "ban-uncommitted-transaction": "BEGIN and COMMIT are refused when the file is read",
    "ban-drop-constraint": "what was forbidden becomes allowed, which running code can bear",
    "ban-drop-not-null": "what was required becomes optional: the first step of dropping a column",
    "ban-create-domain-with-constraint": "a matter of taste; add-column-rewrite looks at columns of such domains",
    "ban-char-field": "a matter of taste",
    "prefer-bigint-over-int": "a matter of taste",
    "prefer-bigint-over-smallint": "a matter of taste",
    "prefer-identity": "a matter of taste",
    "prefer-text-field": "a matter of taste",
    "prefer-timestamp-tz": "a matter of taste",
    "require-enum-value-ordering": "a matter of taste",
}
SYNTAX = "syntax-error"


@dataclass(frozen=True)
class Source:
    """The statements of one part of a file, and whether they run in one transaction."""

    statements: Sequence[Statement]
    transactional: bool


@dataclass(frozen=True)
class Report:
    """What Squawk says of a statement; `line` is that of the file."""

    source: int
    statement: int
    line: int
    rule: str
    message: str


def program() -> Path | None:
    """Find the program that was installed beside this Python; none where only a function's requirements are."""
    directory = Path(sysconfig.get_path("scripts"))
    return next((path for name in ("squawk", "squawk.exe") if (path := directory / name).exists()), None)


def look(sources: Sequence[Source]) -> list[Report]:
    """Have it look at all sources at once; nothing where it is not installed. Raises LocalEnvironmentError."""
    path = program()
    if path is None or not any(source.statements for source in sources):
        return []
    with TemporaryDirectory() as name:
        directory = Path(name)
        # An own, empty configuration: it would look for one in the folders above.
        (directory / "squawk.toml").touch()
        starts = []
        for index, source in enumerate(sources):
            text, lines = _text(source)
            (directory / f"{index}.sql").write_text(text, "utf-8")
            starts.append(lines)
        found = _run(path, directory, [f"{index}.sql" for index in range(len(sources))])
    return [report for entry in found if (report := _report(entry, sources, starts))]


def _text(source: Source) -> tuple[str, list[int]]:
    """Write each statement on lines of its own, without comments: one of them might tell Squawk to look away."""
    mode = "" if source.transactional else "-- squawk-disable-assume-in-transaction"
    text, starts = f"{mode}\n", []
    for statement in source.statements:
        starts.append(text.count("\n"))
        text += f"{_without_comments(statement.text)}\n;\n"
    return text, starts


def _without_comments(text: str) -> str:
    return "".join(
        "".join(character if character == "\n" else " " for character in token.text)
        if token.kind == "comment"
        else token.text
        for token in tokens(text)
    )


def _run(path: Path, directory: Path, files: list[str]) -> list[dict[str, object]]:
    command = [str(path), "--reporter", "json", "--config", "squawk.toml", "--pg-version", VERSION]
    try:
        done = subprocess.run(  # noqa: S603 - the program beside this Python
            [*command, "--assume-in-transaction", "--exclude", ",".join(EXCLUDED), *files],
            cwd=directory,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        found: list[dict[str, object]] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise LocalEnvironmentError(
            f"squawk failed: {type(error).__name__}.",
            solutions=["Install it anew: pip install --force-reinstall --no-deps -r requirements-dev.txt"],
        ) from None
    return found


def _report(entry: Mapping[str, object], sources: Sequence[Source], starts: list[list[int]]) -> Report | None:
    index, line = int(str(entry["file"]).removesuffix(".sql")), int(str(entry["line"]))
    statement = sum(start <= line for start in starts[index]) - 1
    if statement < 0:
        return None
    begins = sources[index].statements[statement]
    last = begins.line + begins.text.count("\n")
    message = " ".join(str(entry["message"]).split())
    help_ = f" {entry['help']}" if entry.get("help") else ""
    at = min(begins.line + line - starts[index][statement], last)
    return Report(index, statement, at, str(entry["rule_name"]), message + help_)

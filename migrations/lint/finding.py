"""What lint says of a migration: where, which rule, why, and the form that is safe."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class SafeFile:
    """One migration file of a safe form: its SQL, and when it is to be applied where that matters."""

    sql: str
    transactional: bool = True
    when: str = ""


Safe = tuple[SafeFile, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found; `allowed` is the reason that the file gives for it, `line` counts from 1."""

    path: Path
    line: int
    rule: str
    level: Level
    message: str
    safe: Safe = ()
    allowed: str | None = None

    @property
    def fails(self) -> bool:
        """Tell whether a check that found this has failed."""
        return self.level == "error" and self.allowed is None

    def __str__(self) -> str:
        """Write it as a terminal shows it, the safe form below it."""
        level = self.level if self.allowed is None else "allowed"
        head = f"{self.path.name}:{self.line}: {level}: {self.rule}: {self.message}"
        if self.allowed is not None:
            return f"{head}\n  Its reason: {self.allowed}"
        return "\n".join([head, *_lines(self.safe)])

    def as_object(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return {
            "path": str(self.path),
            "line": self.line,
            "rule": self.rule,
            "level": self.level,
            "message": self.message,
            "allowed": self.allowed,
            "safe_form": [
                {"sql": file.sql, "transaction": file.transactional, "when": file.when} for file in self.safe
            ],
        }


def sentence_of(findings: Sequence[Finding]) -> str:
    """Count them in one sentence."""
    errors = sum(finding.fails for finding in findings)
    allowed = sum(finding.allowed is not None for finding in findings)
    counts = {"error": errors, "warning": len(findings) - errors - allowed, "allowed": allowed}
    words = [
        f"{count} {what}{'s' if count > 1 and what != 'allowed' else ''}" for what, count in counts.items() if count
    ]
    return ", ".join(words) or "nothing found"


def _lines(safe: Safe) -> Iterable[str]:
    for number, file in enumerate(safe, start=1):
        place = "Safe form" if len(safe) == 1 else f"Safe form, file {number} of {len(safe)}"
        header = "" if file.transactional else ", with `-- transaction: none` in its first comment"
        when = f", {file.when}" if file.when else ""
        yield f"  {place}{header}{when}:"
        yield indent(file.sql, "      ")

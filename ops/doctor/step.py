"""One step of an examination: what was looked at, what was found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

from shared.db.diagnosis import Diagnosis

Verdict = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Step:
    """What one look showed. `code` is the diagnosis's, where something failed; nothing here holds a secret."""

    name: str
    verdict: Verdict
    found: str
    solutions: tuple[str, ...] = ()
    code: str | None = None


def failed(name: str, diagnosis: Diagnosis) -> Step:
    """Make the step that a diagnosis explains."""
    return Step(name, "fail", diagnosis.cause, diagnosis.solutions, diagnosis.code)

"""The comment lines `-- lint: allow RULE because REASON`, each directly before the statement that it allows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from migrations.files import Part
from migrations.statements import Statement, tokens

_LINE = re.compile(r"--[ \t]*lint:[ \t]*(?P<rest>.*?)[ \t\r]*")
_ALLOW = re.compile(r"allow[ \t]+(?P<rule>[\w-]+)(?:[ \t]+because[ \t]+(?P<reason>\S.*))?")


@dataclass
class Allowance:
    """One such line: `rule` is empty where it cannot be read, `statement` is the index of what it stands before."""

    line: int
    rule: str
    reason: str
    statement: int | None
    used: bool = False

    @property
    def is_complete(self) -> bool:
        """Tell whether it names a rule and gives a reason."""
        return bool(self.rule and self.reason)


def read(part: Part, statements: Sequence[Statement], head: Sequence[str] = ()) -> list[Allowance]:
    """List the lines of one part of a file; one behind the last statement stands before none.

    Those in `head`, the lines of the file's first comment, stand before its first statement.
    """
    found = [
        _allowance(number, match["rest"], 0 if statements else None)
        for number, line in enumerate(head, start=1)
        if (match := _LINE.fullmatch(line.strip()))
    ]
    index, end = -1, 0
    for token in tokens(part.text):
        if token.kind in ("space", "semicolon"):
            continue
        if token.kind != "comment":
            if token.start >= end and index + 1 < len(statements):
                index += 1
                end = token.start + len(statements[index].text)
            continue
        if match := _LINE.fullmatch(token.text):
            # Within a statement it stands before nothing.
            before = index + 1 if token.start >= end and index + 1 < len(statements) else None
            line = part.first_line + part.text.count("\n", 0, token.start)
            found.append(_allowance(line, match["rest"], before))
    return found


def _allowance(line: int, text: str, statement: int | None) -> Allowance:
    allow = _ALLOW.fullmatch(text)
    rule, reason = (allow["rule"], allow["reason"] or "") if allow else ("", "")
    return Allowance(line, rule, reason, statement)

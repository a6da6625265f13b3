"""One row of the table of diagnoses: how a failure is recognised, what causes it, and what to do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from shared.db.session import identifier


@dataclass(frozen=True)
class Row:
    """A cause of failures, and its words.

    `says` is a regular expression for what the server, a pooler or the driver says; `sqlstates` are the codes with
    which the server says it. Cause and solutions may hold names such as {host}, {user} or {table:sql}, quoted for SQL;
    the named groups of `says` are such names too. What is not known stands in capitals: HOST.
    """

    code: str
    cause: str
    solutions: tuple[str, ...]
    says: str = ""
    sqlstates: tuple[str, ...] = ()
    # The SQLSTATE has other causes too, so the words must be there; a translated message falls to the general row.
    needs_words: bool = False
    # The text does not tell why: a look at the wire may.
    is_vague: bool = False

    # Here, not in __post_init__: nobody should pay for patterns that are never tried.
    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Give `says`, compiled."""
        return re.compile(self.says, re.IGNORECASE | re.MULTILINE)

    def written(self, names: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
        """Give cause and solutions with these names filled in."""
        known = _Names({name: _Name(value) for name, value in names.items() if value})
        return self.cause.format_map(known), tuple(solution.format_map(known) for solution in self.solutions)


class _Name(str):
    """A name in a sentence; with the format `sql`, quoted as an identifier."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return identifier(self) if spec == "sql" else str(self)


class _Placeholder(str):
    """Stands for a name that is not known: never quoted."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self)


class _Names(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return _Placeholder(name.upper())

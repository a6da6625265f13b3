"""A fault: what goes wrong, how it is made to, and what whoever meets it must be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.activities import NAMES, Told
from tests.faults.world import World

Strike = Callable[[World], Told]
# What the fault does more to than to the database of the test: the server is the faults' own, or one on a small disk.
Server = Literal["shared", "own", "small"]

LONGEST = 60.0  # seconds for a command, three times what most of the slow ones take

REGISTER: list[Fault] = []


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    `strike` begins the activity, makes the fault, ends it, and gives what was told. `expected` is activity to the words
    that are allowed, the drivers' in the order psycopg, pg8000 where they differ. What an activity never meets has its
    reason in `never`. `is_cold` begins without a connection; `fast` are the activities that `make test` tries, too.
    `longest` is how many seconds a command may take; requests have a deadline.
    """

    name: str
    strike: Strike
    expected: Mapping[str, str | tuple[str, str]]
    never: Mapping[str, str] = field(default_factory=dict)
    server: Server = "shared"
    is_cold: bool = False
    fast: Sequence[str] = ()
    longest: float = LONGEST

    def __post_init__(self) -> None:
        assert {*self.expected, *self.never} == set(NAMES), f"{self.name}: every activity needs its word"

    def allowed(self, activity: str, driver: str) -> list[str]:
        """Give what may be told: `expected` has several ways separated by a bar."""
        words = self.expected[activity]
        return (words if isinstance(words, str) else words[driver == "pg8000"]).split(" | ")


def fault(
    name: str,
    expected: Mapping[str, str | tuple[str, str]],
    *,
    never: Mapping[str, str] | None = None,
    server: Server = "shared",
    is_cold: bool = False,
    fast: Sequence[str] = (),
    longest: float = LONGEST,
) -> Callable[[Strike], Strike]:
    """Put a function into the table as the strike of a fault."""

    def register(strike: Strike) -> Strike:
        REGISTER.append(Fault(name, strike, expected, never or {}, server, is_cold, fast, longest))
        return strike

    return register

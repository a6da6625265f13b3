"""`%(name)s` in a statement, as the server numbers its parameters: the same for both drivers."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from shared.errors import DatabaseError, DataException

_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|(%)|)")


@lru_cache(maxsize=1024)
def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """Turn each %(name)s into its $n and %% into %; give the names in the order of their numbers.

    Raises DatabaseError for any other %.
    """
    names: dict[str, int] = {}

    def place(match: re.Match[str]) -> str:
        if match[2]:
            return "%"
        if match[1] is None:
            raise DatabaseError(
                "A statement that takes parameters has a lone %.",
                solutions=["Write a parameter %(name)s, and a plain % as %%."],
            )
        return f"${names.setdefault(match[1], len(names) + 1)}"

    return _PLACEHOLDER.sub(place, sql), tuple(names)


def values(names: tuple[str, ...], params: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give the values in the order of the names. Raises DatabaseError where one is missing."""
    try:
        return tuple(params[name] for name in names)
    except KeyError as error:
        raise DatabaseError(
            f"The statement has a parameter {error.args[0]} that was not given.",
            solutions=[f"Given were: {', '.join(map(str, params)) or 'none'}."],
        ) from None


def not_text(error: UnicodeEncodeError) -> DataException:
    """Give the error for half of a surrogate pair, which JSON's escapes can write and UTF-8 cannot; as the server's."""
    return DataException(
        f"A value holds a character that is not text: {error.object[error.start : error.end]!a}.", sqlstate="22021"
    )

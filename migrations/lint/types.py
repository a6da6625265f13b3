"""Which changes of a column's type leave its table as it is: no rewrite, no scan (ALTER TABLE, Notes).

The server skips the rewrite where the old values are valid values of the new type as they lie on disk, and builds no
index anew. A test asks the server about each line of FREE and COSTLY in tests/migrations/test_lint_claims.py.
"""

import re
from typing import NamedTuple

_ALIASES = {
    "character varying": "varchar",
    "character": "char",
    "bpchar": "char",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "int2": "smallint",
    "decimal": "numeric",
    "float8": "double precision",
    "bool": "boolean",
    "bit varying": "varbit",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
    "time with time zone": "timetz",
}
_TYPE = re.compile(r"(?P<name>[a-z_][\w .]*?)\s*(?:\((?P<modifiers>[\d\s,-]+)\))?(?P<rest>[a-z ]*)")
_MAXIMUM_PRECISION = 6  # of the types of time: what they have where nothing is said


class Type(NamedTuple):
    """A built-in type with its modifiers."""

    name: str
    modifiers: tuple[int, ...] = ()


def read(written: str) -> Type | None:
    """Read a type as a file writes it; None for arrays, and for what does not look like a built-in one."""
    match = _TYPE.fullmatch(" ".join(written.lower().split()).removeprefix("pg_catalog."))
    if match is None:
        return None
    name = match["name"].strip() + match["rest"]
    modifiers = tuple(int(part) for part in match["modifiers"].split(",")) if match["modifiers"] else ()
    return Type(_ALIASES.get(name, name), modifiers)


def is_free(old: str | None, new: str) -> bool:
    """Tell whether a column of the type `old` becomes `new` without a rewrite; not where `old` is not known."""
    before, after = read(old) if old is not None else None, read(new)
    if before is None or after is None:
        return False
    if before == after:
        return True
    match before.name, after.name:
        case ("varchar" | "text", "text"):
            return True
        case ("text", "varchar"):
            return not after.modifiers
        case ("varchar", "varchar") | ("varbit", "varbit"):
            return _is_wider(before, after)
        case ("numeric", "numeric"):
            return _is_wider_number(before, after)
        case ("timestamp", "timestamp") | ("timestamptz", "timestamptz") | ("time", "time") | ("timetz", "timetz"):
            return _precision(after) >= _precision(before)
        case ("cidr", "inet"):
            return True
        case _:
            return False


def _is_wider(before: Type, after: Type) -> bool:
    return not after.modifiers or (bool(before.modifiers) and after.modifiers[0] >= before.modifiers[0])


def _is_wider_number(before: Type, after: Type) -> bool:
    if not after.modifiers:
        return True
    scales = [kind.modifiers[1] if len(kind.modifiers) > 1 else 0 for kind in (before, after)]
    return bool(before.modifiers) and after.modifiers[0] >= before.modifiers[0] and scales[0] == scales[1]


def _precision(kind: Type) -> int:
    return kind.modifiers[0] if kind.modifiers else _MAXIMUM_PRECISION

"""Recognise a statement by its first words, and take it apart as far as rules need it."""

from collections.abc import Callable

from migrations.lint import parse_table
from migrations.lint.nodes import (
    AddValue,
    Change,
    Create,
    CreateIndex,
    Drop,
    Maintain,
    Node,
    Other,
    Parsed,
    Rename,
    Setting,
)
from migrations.lint.syntax import Cursor, Name, Unrecognised, folded, top_level

# What CREATE may say of an object before it says what it is.
_ADJECTIVES = ("OR", "REPLACE", "TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED", "RECURSIVE", "CONSTRAINT")
_TWO_WORDS = {
    ("MATERIALIZED", "VIEW"),
    ("FOREIGN", "TABLE"),
    ("EVENT", "TRIGGER"),
    ("OPERATOR", "CLASS"),
    ("OPERATOR", "FAMILY"),
    ("ACCESS", "METHOD"),
    ("USER", "MAPPING"),
    ("FOREIGN", "DATA"),
    ("TEXT", "SEARCH"),
}
_ON_A_TABLE = ("TRIGGER", "POLICY", "RULE")


def parse(text: str) -> Parsed:
    """Take a statement apart. What cannot be is a plain `Other`, `known` only where nothing of it concerns lint."""
    cursor = Cursor(text)
    reader = _READERS.get(cursor.word)
    if reader is None:
        return Parsed()
    try:
        node, known = reader(cursor)
    except Unrecognised:
        return Parsed(known=False)
    return Parsed(node, known)


def _create(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("CREATE")
    replace = cursor.at("OR", "REPLACE")
    while cursor.word in _ADJECTIVES:
        cursor.advance()
    if cursor.at("TABLE"):
        return parse_table.create_table(cursor), True
    if cursor.word in ("UNIQUE", "INDEX"):
        return _create_index(cursor), True
    if cursor.take("DOMAIN"):
        return parse_table.create_domain(cursor), True
    kind = _kind(cursor)
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    if cursor.is_done or kind in ("CAST", "OPERATOR", "TRANSFORM", "USER MAPPING", "FOREIGN DATA", "TEXT SEARCH"):
        return Other(), True
    if kind == "SCHEMA" and cursor.at("AUTHORIZATION"):
        return Other(), True
    name = cursor.name()
    table = None
    if kind in _ON_A_TABLE:
        # ON DELETE and the like come first in a rule, ON UPDATE OF in no trigger.
        cursor.until(*(("TO",) if kind == "RULE" else ("ON",)), comma=False)
        if not cursor.is_done:
            cursor.advance()
            table = cursor.name()
    return Create(kind, name, if_not_exists, replace, table), True


def _kind(cursor: Cursor) -> str:
    first = cursor.advance().text.upper()
    if (first, cursor.word) in _TWO_WORDS:
        return f"{first} {cursor.advance().text.upper()}"
    return first


def _create_index(cursor: Cursor) -> CreateIndex:
    unique = cursor.take("UNIQUE")
    cursor.need("INDEX")
    concurrently = cursor.take("CONCURRENTLY")
    if_not_exists = cursor.take("IF", "NOT", "EXISTS")
    name = None if cursor.at("ON") else cursor.name()
    definition = cursor.text[cursor.start :]
    cursor.need("ON")
    only = cursor.take("ONLY")
    table = cursor.name()
    if cursor.take("USING"):
        cursor.identifier()
    items = tuple(top_level(cursor.group()))
    return CreateIndex(table, definition, items, name, unique, concurrently, if_not_exists, only)


def _drop(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("DROP")
    kind = _kind(cursor)
    concurrently = cursor.take("CONCURRENTLY")
    if_exists = cursor.take("IF", "EXISTS")
    if kind in ("CAST", "OPERATOR", "TRANSFORM", "USER MAPPING", "OPERATOR CLASS", "OPERATOR FAMILY", "OWNED"):
        return Other(), True
    if kind in _ON_A_TABLE:
        name = cursor.name()
        cursor.need("ON")
        return Drop(kind, (name,), concurrently, if_exists, cursor.name()), True
    names = []
    while True:
        names.append(cursor.name())
        if cursor.peek().kind == "open":  # the arguments of a function
            cursor.skip()
        if not cursor.take_symbol(","):
            break
    return Drop(kind, tuple(names), concurrently, if_exists), True


def _alter(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("ALTER")
    if cursor.at("TABLE") or cursor.at("FOREIGN", "TABLE"):
        return parse_table.alter_table(cursor)
    kind = _kind(cursor)
    if kind in ("ROLE", "USER", "DATABASE"):
        return _alter_role(cursor)
    if kind not in ("TYPE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "FUNCTION", "PROCEDURE", "DOMAIN", "SCHEMA"):
        return Other(), True
    cursor.take("IF", "EXISTS")
    name = cursor.name()
    if kind in ("FUNCTION", "PROCEDURE") and cursor.peek().kind == "open":
        cursor.skip()
    if cursor.take("RENAME", "TO"):
        return Rename(kind, name, cursor.name()), True
    if cursor.take("SET", "SCHEMA"):
        return Rename(kind, name, cursor.name(), moves=True), True
    if kind == "TYPE" and cursor.take("ADD", "VALUE"):
        if_not_exists = cursor.take("IF", "NOT", "EXISTS")
        value = cursor.advance().text
        return AddValue(name, value, cursor.text[cursor.start :], if_not_exists), True
    # A constraint of a domain, a renamed attribute or enum value: squawk may know more of it.
    return Other(), not (cursor.at("ADD") or cursor.at("RENAME"))


def _alter_role(cursor: Cursor) -> tuple[Node, bool]:
    cursor.identifier()
    if cursor.take("IN", "DATABASE"):
        cursor.identifier()
    if not cursor.take("SET"):
        return Other(), True
    return Setting(folded(cursor.identifier()), "ROLE", cursor.text[cursor.start :]), True


def _change(cursor: Cursor) -> tuple[Node, bool]:
    kind = cursor.advance().text.upper()
    if kind == "DELETE":
        cursor.need("FROM")
    start = cursor.start
    cursor.take("ONLY")
    table = cursor.name()
    cursor.take_symbol("*")
    alias = table.text
    if (
        cursor.take("AS")
        or cursor.word not in ("SET", "USING", "WHERE", "RETURNING", "")
        or cursor.peek().kind == "string"
    ):
        alias = cursor.identifier()
    target = cursor.text[start : cursor.end]
    assignments = source = where = ""
    if kind == "UPDATE":
        cursor.need("SET")
        assignments = cursor.until("FROM", "WHERE", "RETURNING", comma=False)
    if cursor.take("FROM") or cursor.take("USING"):
        source = cursor.until("WHERE", "RETURNING", comma=False)
    if cursor.take("WHERE"):
        where = cursor.until("RETURNING", comma=False)
    return Change("UPDATE" if kind == "UPDATE" else "DELETE", table, target, alias, assignments, source, where), True


def _vacuum(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("VACUUM")
    full = False
    if cursor.peek().kind == "open":
        full = any(
            option.upper().split()[:1] == ["FULL"] and option.upper().split()[1:] not in (["FALSE"], ["OFF"], ["0"])
            for option in top_level(cursor.group())
        )
    while cursor.word in ("FULL", "FREEZE", "VERBOSE", "ANALYZE"):
        full = cursor.advance().text.upper() == "FULL" or full
    if not full:
        return Other(), True
    return Maintain("VACUUM FULL", tuple(_tables(cursor))), True


def _tables(cursor: Cursor) -> list[Name]:
    found = []
    while not cursor.is_done:
        cursor.take("ONLY")
        found.append(cursor.name())
        cursor.take_symbol("*")
        if cursor.peek().kind == "open":  # columns to analyze
            cursor.skip()
        if not cursor.take_symbol(","):
            break
    return found


def _cluster(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("CLUSTER")
    if cursor.peek().kind == "open":
        cursor.skip()
    cursor.take("VERBOSE")
    return Maintain("CLUSTER", () if cursor.is_done else (cursor.name(),), rest=cursor.text[cursor.start :]), True


def _reindex(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("REINDEX")
    options = cursor.group().upper().split() if cursor.peek().kind == "open" else []
    what = cursor.advance().text.upper()
    concurrently = cursor.take("CONCURRENTLY") or "CONCURRENTLY" in options
    return Maintain("REINDEX", () if cursor.is_done else (cursor.name(),), concurrently, what), True


def _refresh(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("REFRESH", "MATERIALIZED", "VIEW")
    concurrently = cursor.take("CONCURRENTLY")
    return Maintain("REFRESH", (cursor.name(),), concurrently, rest=cursor.text[cursor.start :]), True


def _truncate(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("TRUNCATE")
    cursor.take("TABLE")
    return Maintain("TRUNCATE", tuple(_tables(cursor)), rest=cursor.text[cursor.start :].upper()), True


def _lock(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("LOCK")
    cursor.take("TABLE")
    names = tuple(_tables(cursor))
    mode = " ".join(cursor.until("MODE").upper().split()) if cursor.take("IN") else "ACCESS EXCLUSIVE"
    return Maintain("LOCK", names, what=mode), True


def _set(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("SET")
    scope = cursor.word if cursor.word in ("LOCAL", "SESSION") else ""
    if cursor.at("SESSION", "CHARACTERISTICS") or cursor.at("SESSION", "AUTHORIZATION"):
        return Setting(f"session {cursor.peek(1).text.lower()}", "", cursor.text[cursor.start :]), True
    if scope:
        cursor.advance()
    text = cursor.text[cursor.start :]
    if not scope and cursor.word in ("CONSTRAINTS", "TRANSACTION"):  # end with the transaction by themselves
        return Other(), True
    return Setting(_parameter(cursor), scope, text), True


def _parameter(cursor: Cursor) -> str:
    return "timezone" if cursor.take("TIME", "ZONE") else folded(cursor.identifier())


def _reset(cursor: Cursor) -> tuple[Node, bool]:
    cursor.need("RESET")
    return Setting(_parameter(cursor), "RESET"), True


def _select(cursor: Cursor) -> tuple[Node, bool]:
    # SELECT set_config('search_path', '', false), as pg_dump writes it.
    cursor.need("SELECT")
    if cursor.at("PG_CATALOG") and cursor.peek(1).text == ".":
        cursor.advance()
        cursor.advance()
    if not cursor.take("SET_CONFIG"):
        return Other(), True
    parts = top_level(cursor.group())
    if len(parts) != 3:
        raise Unrecognised
    scope = "LOCAL" if parts[2].strip().lower() == "true" else ""
    return Setting(parts[0].strip("' ").lower(), scope, f"{parts[0].strip(chr(39))} = {parts[1]}"), True


_READERS: dict[str, Callable[[Cursor], tuple[Node, bool]]] = {
    "CREATE": _create,
    "DROP": _drop,
    "ALTER": _alter,
    "UPDATE": _change,
    "DELETE": _change,
    "VACUUM": _vacuum,
    "CLUSTER": _cluster,
    "REINDEX": _reindex,
    "REFRESH": _refresh,
    "TRUNCATE": _truncate,
    "LOCK": _lock,
    "SET": _set,
    "RESET": _reset,
    "SELECT": _select,
}

"""Statements without their data: literals can be anybody's name, address or password."""

import re

_LIMIT = 300  # characters that are shown of a statement

# Manual 4.1: a literal, a dollar-quoted one, or a number; what the server cut off has no end. Names in double quotes
# and parameters stay. Comments go: some tools put a request's data into them; one inside
# another may end anywhere.
_TOKENS = re.compile(
    r"""
      (?P<name> "(?:[^"]|"")*(?:"|$) | \$\d+ | (?![uU]&')[^\W\d][\w$]*(?!') )
    | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\\?$) )
    | (?P<literal> (?:\b(?:[bBxXnN]|[uU]&))?'(?:[^']|'')*(?:'|$) )
    | (?P<dollar> \$(?P<tag>[^\W\d]\w*)?\$.*?(?:\$(?(tag)(?P=tag))\$|$) )
    | (?P<comment> --[^\n]*(?:\n|$) | /\*(?:(?!/\*|\*/).)*(?:\*/|/\*.*|$) )
    | (?P<number> \d[\w.]* )
    """,
    re.VERBOSE | re.DOTALL,
)


def masked_statement(text: str | None) -> str | None:
    """Put ? in the place of every literal, on one line, and cut it."""
    if text is None:
        return None

    def replace(match: re.Match[str]) -> str:
        if match["name"] is not None:
            return match[0]
        return " " if match["comment"] is not None else "?"

    line = " ".join(_TOKENS.sub(replace, text).split())
    return line if len(line) <= _LIMIT else line[: _LIMIT - 1] + "…"

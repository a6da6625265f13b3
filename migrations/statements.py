"""Split SQL text into statements, as PostgreSQL's own lexer would (manual 4.1, Lexical Structure).

A migration is sent statement by statement, so that a failure has a line and a name. Splitting at every semicolon
would cut string constants, dollar-quoted bodies, comments, rules and SQL-standard function bodies in two.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

# A name's characters are told by what ASCII has of others: classes that reach to the last code point compile slowly.
_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n\f\v]+)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<string>
          [eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'(?:[ \t\r\f\v]*\n[ \t\r\n\f\v]*'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+')*
        | (?:[uU]&|[bBxXnN])?'[^']*+(?:''[^']*+)*+'
        | (?:[uU]&)?"[^"]*+(?:""[^"]*+)*+"
      )
    | (?P<unclosed>(?:[eEbBxXnN]|[uU]&)?'|(?:[uU]&)?")
    | (?P<dollar>\$(?:[^\x00-@\[-^`{-\x7f][^\x00-/:-@\[-^`{-\x7f]*)?\$)
    | (?P<word>[^\x00-@\[-^`{-\x7f][^\x00-#%-/:-@\[-^`{-\x7f]*)
    | (?P<open>[(\[])
    | (?P<close>[)\]])
    | (?P<semicolon>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ROUTINE = re.compile(r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE) ")
REPEAT = re.compile(r"--[ \t]*repeat until no rows[ \t\r]*")


class Malformed(ValueError):
    """The text cannot be split; `offset` is where the trouble begins."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


@dataclass(frozen=True)
class Statement:
    """One SQL statement without its semicolon; `line` is where it begins in its file, counted from 1.

    `repeated` where `-- repeat until no rows` stands among the comments before it.
    """

    text: str
    line: int
    repeated: bool = False

    @property
    def summary(self) -> str:
        """Give the statement on one line, cut at 200 characters: for messages."""
        flat = " ".join(self.text.split())
        return flat if len(flat) <= 200 else flat[:199] + "…"

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Give its words in capitals, without comments and quotations: CREATE, INDEX, CONCURRENTLY, ..."""
        return tuple(token.text.upper() for token in tokens(self.text) if token.kind == "word")


class Token(NamedTuple):
    """A piece of the text: `kind` is space, comment, string, word, open, close, semicolon or other."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Give the offset behind it."""
        return self.start + len(self.text)


def split(text: str, *, first_line: int = 1) -> list[Statement]:
    """List the statements of a text, whose first line is `first_line` of its file.

    Raises Malformed for a quotation, comment, parenthesis or statement that is never closed.
    """
    return list(_split(text, first_line))


@lru_cache(maxsize=256)  # the runner, lint and Alembic's loader all read a file that is pending
def _split(text: str, first_line: int) -> tuple[Statement, ...]:
    statements: list[Statement] = []
    current: list[Token] = []
    nesting = _Nesting()
    repeated = False
    line, counted = first_line, 0
    for token in tokens(text):
        if token.kind == "space":
            continue
        if token.kind == "comment":
            repeated = repeated or (not current and REPEAT.fullmatch(token.text) is not None)
            continue
        if token.kind == "semicolon" and nesting.is_outside:
            if current:
                start, end = current[0].start, current[-1].end
                line, counted = line + text.count("\n", counted, start), start
                statements.append(Statement(text[start:end], line, repeated))
            current, nesting, repeated = [], _Nesting(), False
        else:
            current.append(token)
            nesting.enter(token)
    if nesting.parentheses:
        raise Malformed("a parenthesis is opened and never closed", nesting.parentheses[0])
    if current:
        raise Malformed("the statement is not ended by a semicolon", current[0].start)
    return tuple(statements)


def tokens(text: str) -> Iterator[Token]:
    """Cut the text into tokens that give it back when joined. Raises Malformed."""
    position = 0
    while match := _TOKEN.match(text, position):
        kind = match.lastgroup or "other"
        end = match.end()
        if kind == "block":
            kind, end = "comment", _end_of_block_comment(text, position)
        elif kind == "dollar":
            closing = text.find(match[0], end)
            if closing < 0:
                raise Malformed(f"the dollar quotation {match[0]} is never closed", position)
            kind, end = "string", closing + len(match[0])
        elif kind == "unclosed":
            what = "string constant" if match[0][-1] == "'" else "quoted identifier"
            raise Malformed(f"a {what} is opened with {match[0]} and never closed", position)
        yield Token(kind, text[position:end], position)
        position = end


def _end_of_block_comment(text: str, start: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise Malformed("a comment is opened with /* and never closed", start)


class _Nesting:
    """Tell whether a semicolon ends the statement, or belongs to a rule or an SQL-standard function body."""

    def __init__(self) -> None:
        self.parentheses: list[int] = []
        self._words: list[str] = []
        self._previous = ""
        self._blocks = 0

    @property
    def is_outside(self) -> bool:
        return not self.parentheses and self._blocks == 0

    def enter(self, token: Token) -> None:
        if token.kind == "open":
            self.parentheses.append(token.start)
        elif token.kind == "close" and self.parentheses:
            self.parentheses.pop()
        elif token.kind == "word" and not self.parentheses:
            self._enter_word(token.text.upper())

    def _enter_word(self, word: str) -> None:
        # BEGIN ATOMIC ... END, in which CASE ... END may stand (manual, CREATE FUNCTION).
        if len(self._words) < 4:
            self._words.append(word)
        is_block = word == "ATOMIC" and self._previous == "BEGIN" and _ROUTINE.match(" ".join([*self._words, ""]))
        if is_block or (word == "CASE" and self._blocks):
            self._blocks += 1
        elif word == "END" and self._blocks:
            self._blocks -= 1
        self._previous = word

"""Read names, words and parentheses out of one SQL statement, token by token."""

import re
from dataclasses import dataclass, field

from migrations.statements import Token, tokens

MAXIMUM_BYTES = 63  # of an identifier (manual 4.1.1)

_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_END = Token("end", "", 0)


class Unrecognised(Exception):
    """The statement has a form that this reader does not know."""


@dataclass(frozen=True)
class Name:
    """A name, perhaps with its schema, as the server stores it; `text` is how the file writes it."""

    name: str
    schema: str | None = None
    text: str = field(default="", compare=False)

    def is_same(self, other: "Name") -> bool:
        """Tell whether both mean one object, as far as can be told without search_path."""
        return self.name == other.name and (self.schema == other.schema or None in (self.schema, other.schema))

    def derived(self, *words: str) -> str:
        """Make an identifier from its last part and further words, as PostgreSQL names indexes and constraints."""
        tail = "".join(f"_{word}" for word in words)
        room = MAXIMUM_BYTES - len(tail.encode())
        return quoted((self.name.encode()[: max(room, 1)].decode("utf-8", "ignore") + tail)[:MAXIMUM_BYTES])

    def beside(self, identifier: str) -> str:
        """Put another identifier into the schema that this name is written with."""
        return f"{quoted(self.schema)}.{identifier}" if self.schema is not None else identifier


def quoted(name: str) -> str:
    """Quote an identifier where it needs that."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def folded(identifier: str) -> str:
    """Give an identifier as the server stores it: unquoted ones in lower case."""
    if identifier.endswith('"'):
        return identifier[identifier.index('"') + 1 : -1].replace('""', '"')
    return identifier.lower()


class Cursor:
    """A place in a statement; what is read moves it. Comments are passed over."""

    def __init__(self, text: str, start: int = 0) -> None:
        self.text = text
        self._tokens = [token for token in tokens(text) if token.kind not in ("space", "comment")]
        self._index = next((i for i, token in enumerate(self._tokens) if token.start >= start), len(self._tokens))

    def peek(self, ahead: int = 0) -> Token:
        """Give a token without reading it; one of kind `end` behind the last."""
        index = self._index + ahead
        return self._tokens[index] if 0 <= index < len(self._tokens) else _END

    @property
    def start(self) -> int:
        """Give the offset of the next token."""
        return len(self.text) if self.is_done else self.peek().start

    @property
    def end(self) -> int:
        """Give the offset behind the token that was read last."""
        return self._tokens[self._index - 1].end if self._index else 0

    @property
    def is_done(self) -> bool:
        """Tell whether everything was read."""
        return self._index >= len(self._tokens)

    @property
    def word(self) -> str:
        """Give the next token in capitals where it is an unquoted word, else an empty text."""
        token = self.peek()
        return token.text.upper() if token.kind == "word" else ""

    def at(self, *words: str) -> bool:
        """Tell whether these words come next."""
        found = (self.peek(ahead) for ahead in range(len(words)))
        return all(
            token.kind == "word" and token.text.upper() == word for token, word in zip(found, words, strict=True)
        )

    def at_symbol(self, symbol: str) -> bool:
        """Tell whether this parenthesis, comma or other sign comes next."""
        return self.peek().text == symbol

    def take(self, *words: str) -> bool:
        """Read these words where they come next."""
        found = self.at(*words)
        self._index += len(words) if found else 0
        return found

    def take_symbol(self, symbol: str) -> bool:
        """Read this sign where it comes next."""
        found = self.at_symbol(symbol)
        self._index += found
        return found

    def need(self, *words: str) -> None:
        """Read these words. Raises Unrecognised."""
        if not self.take(*words):
            raise Unrecognised

    def advance(self) -> Token:
        """Read the next token, whatever it is. Raises Unrecognised at the end."""
        if self.is_done:
            raise Unrecognised
        self._index += 1
        return self.peek(-1)

    def identifier(self) -> str:
        """Read one identifier, as it is written. Raises Unrecognised."""
        token = self.advance()
        if token.kind == "word" or (token.kind == "string" and token.text.endswith('"')):
            return token.text
        raise Unrecognised

    def name(self) -> Name:
        """Read a name with or without its schema. Raises Unrecognised."""
        start = self.start
        parts = [folded(self.identifier())]
        while self.take_symbol("."):
            parts.append(folded(self.identifier()))
        return Name(parts[-1], parts[-2] if len(parts) > 1 else None, self.text[start : self.end])

    def names(self) -> list[Name]:
        """Read names with commas between them. Raises Unrecognised."""
        found = [self.name()]
        while self.take_symbol(","):
            found.append(self.name())
        return found

    def group(self) -> str:
        """Read a parenthesis with all that is in it; gives the inside. Raises Unrecognised."""
        if self.peek().kind != "open":
            raise Unrecognised
        start = self.peek().end
        self.skip()
        return self.text[start : self.peek(-1).start].strip()

    def skip(self) -> None:
        """Read one token, or one parenthesis with all that is in it. Raises Unrecognised at the end."""
        depth = 0
        while True:
            kind = self.advance().kind
            depth += (kind == "open") - (kind == "close")
            if depth <= 0:
                return

    def until(self, *words: str, comma: bool = True) -> str:
        """Read up to one of these words, a comma or the end, outside of parentheses; gives the text."""
        start = self.start
        first = self._index
        while not self.is_done and self.word not in words and not (comma and self.at_symbol(",")):
            self.skip()
        return self.text[start : self.end] if self._index > first else ""


def top_level(text: str) -> list[str]:
    """Cut a text at the commas that stand outside of parentheses."""
    cursor, parts = Cursor(text), []
    while not cursor.is_done:
        parts.append(cursor.until())
        cursor.take_symbol(",")
    return parts


def words_of(text: str) -> list[str]:
    """List its identifiers and words, as the server folds them."""
    return [folded(t.text) for t in tokens(text) if t.kind == "word" or (t.kind == "string" and t.text.endswith('"'))]


def flat(text: str) -> str:
    """Write a text on one line, without its comments; constants stay as they are."""
    kept = (token for token in tokens(text) if token.kind != "comment")
    return "".join(" " if token.kind == "space" else token.text for token in kept).strip()


def replaced(expression: str, name: str, by: str) -> str:
    """Put something else for each mention of a name, such as a column for VALUE."""
    result = ""
    for token in tokens(expression):
        is_name = token.kind == "word" or (token.kind == "string" and token.text.endswith('"'))
        result += by if is_name and folded(token.text) == name else token.text
    return result


def operand(expression: str) -> str:
    """Put an expression into parentheses where it is more than one name, constant or call."""
    cursor = Cursor(expression)
    try:
        token = cursor.advance()
        while token.kind == "word" and cursor.take_symbol("."):
            token = cursor.advance()
    except Unrecognised:
        return expression
    if token.kind == "word" and cursor.at_symbol("("):
        cursor.skip()
    return expression if cursor.is_done else f"({expression})"


def unquoted(identifier: str) -> Name:
    """Make a name of an identifier as it is written."""
    return Name(folded(identifier), text=identifier)

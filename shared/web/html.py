"""HTML from elements: whatever is put into one is escaped, so that a name out of a database cannot become markup.

e("p", "Hello ", e("b", name), class_="greeting")
"""

from collections.abc import Iterable
from html import escape
from typing import Union

_VOID = frozenset({"br", "input", "link", "meta"})  # HTML, 13.1.2

Child = Union["Markup", str, int, float, None, Iterable["Child"]]
Attribute = str | int | float | bool | None


class Markup:
    """HTML that is ready to be sent. `e` makes it, and `verbatim` of what we wrote ourselves."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def e(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Make an element. In an attribute's name _ stands for -, and one at its end for nothing: class_, aria_label.

    An attribute that is True stands alone; one that is None or False is left out, as are children that are None.
    """
    tag = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    if name in _VOID:
        return Markup(f"<{tag}>")
    return Markup(f"<{tag}>{_inside(children)}</{name}>")


def group(*children: Child) -> Markup:
    """Put children one behind the other, without an element around them."""
    return Markup(_inside(children))


def verbatim(name: str, text: str) -> Markup:
    """Make a <style> or <script> of our own text, which is not escaped there (HTML, 13.1.2.6)."""
    if "</" in text or "<!--" in text:
        raise ValueError(f"this would end the {name}, or not be what it seems")
    return Markup(f"<{name}>{text}</{name}>")


def _inside(children: Child) -> str:
    if children is None:
        return ""
    if isinstance(children, Markup):
        return children.text
    if isinstance(children, str | int | float):
        return escape(str(children))
    return "".join(map(_inside, children))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'

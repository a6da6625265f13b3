"""One check on the page: a line that opens to what was found, what to do, and the table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shared.health.result import Result, Row
from shared.health.units import cell, counted, heading
from shared.page.words import badge, prose, threshold_text, value_text
from shared.web.html import Child, Markup, e, group

_AT_ONCE = 3  # statements that are seen without opening anything
# What the tree and the lists of sessions say of each; other keys of a row are the table's alone.
_OF_A_SESSION = ("role", "application", "database", "state", "mode", "relation")


def wrong(result: Result) -> Markup:
    """Show a check that fails or warns, with all that is to be done."""
    id = f"wrong-{result.name}"
    return e(
        "article",
        e("h3", badge(result.verdict), " ", result.title, id=id),
        e("p", result.summary, class_="summary"),
        what_to_do(result, id),
        e("p", e("a", "What was found", href=f"#check-{result.name}"), class_="more") if result.rows else None,
        class_=f"wrong {result.verdict}",
        aria_labelledby=id,
    )


def detailed(result: Result) -> Markup:
    """Show any check: closed, a line; open, everything."""
    id = f"check-{result.name}"
    threshold = threshold_text(result.threshold, result.unit)
    return e(
        "details",
        e(
            "summary",
            badge(result.verdict),
            e("span", result.title, class_="title"),
            e("span", value_text(result), class_="value"),
        ),
        e(
            "div",
            e("p", result.summary, class_="summary"),
            e("p", f"It {threshold}.", class_="hint") if threshold else None,
            what_to_do(result, id),
            tree(result.rows) if result.name == "blocked_sessions" else table(result, id),
            class_="inside",
        ),
        id=id,
        class_="check",
    )


def what_to_do(result: Result, id: str) -> Markup:
    """Show advice as a list, and statements with a button that copies them."""
    advice = (
        e("ul", [e("li", prose(sentence)) for sentence in result.advice], class_="advice") if result.advice else None
    )
    statements = [statement(sql, f"{id}-sql-{n}") for n, sql in enumerate(result.sql)]
    first, more = statements[:_AT_ONCE], statements[_AT_ONCE:]
    if more:
        first.append(e("details", e("summary", f"{counted(len(more), 'statement')} more"), more, id=f"{id}-more"))
    return group(advice, first)


def statement(sql: str, id: str) -> Markup:
    """Show SQL to copy."""
    return e(
        "div",
        e("pre", e("code", sql, id=id), tabindex="0", aria_label="SQL"),
        e("button", "Copy", type="button", data_copy=id, aria_describedby=id),
        class_="sql",
        id=f"{id}-box",
    )


def table(result: Result, id: str) -> Markup | None:
    """Show the rows, in a box of their own that scrolls where they are wide."""
    return rows_table(result.rows, result.title, f"{id}-table")


def rows_table(rows: Sequence[Row], title: str, id: str) -> Markup | None:
    """Show any rows; the first has the columns."""
    if not rows:
        return None
    keys = list(rows[0])
    return e(
        "div",
        e(
            "table",
            e("thead", e("tr", [e("th", heading(key), scope="col") for key in keys])),
            e("tbody", [e("tr", [_cell(key, row.get(key)) for key in keys]) for row in rows]),
        ),
        class_="box",
        tabindex="0",
        role="region",
        aria_label=f"{title}: table",
        id=id,
    )


def tree(rows: Sequence[Row]) -> Markup | None:
    """Show who waits for whom as lists in lists; a row's `depth` says below which it stands."""
    return _level(iter_children(rows, 0)) if rows else None


def iter_children(rows: Sequence[Row], depth: int) -> list[tuple[Row, Sequence[Row]]]:
    """Split rows into those of a depth, each with the rows that follow it deeper."""
    found: list[tuple[Row, Sequence[Row]]] = []
    begin = 0
    for index, row in enumerate(rows):
        if row.get("depth", 0) <= depth and index > begin:
            found.append((rows[begin], rows[begin + 1 : index]))
            begin = index
    return [*found, (rows[begin], rows[begin + 1 :])]


def _level(nodes: Iterable[tuple[Row, Sequence[Row]]]) -> Markup:
    items = []
    for row, below in nodes:
        inner = _level(iter_children(below, row.get("depth", 0) + 1)) if below else None
        items.append(e("li", session(row, *_waits(row)), inner))
    return e("ul", items, class_="tree")


def _waits(row: Row) -> list[str]:
    waits = row.get("waiting_seconds")
    if waits is None:
        return [f"in a transaction for {cell('_seconds', row['transaction_seconds'])}"] if _open(row) else []
    return [f"waits {cell('_seconds', waits)}"]


def _open(row: Row) -> bool:
    return row.get("transaction_seconds") is not None


def session(row: Mapping[str, Any], *since: str) -> Markup:
    """Show a session in two lines: who it is and for how long, and its statement."""
    facts: list[Child] = [e("b", f"pid {row.get('pid')}")]
    facts += [e("span", text) for text in since]
    facts += [e("bdi", str(row[key])) for key in _OF_A_SESSION if row.get(key)]
    query = row.get("query")
    return e("div", e("p", facts, class_="facts"), e("code", query) if query else None, class_="session")


def _cell(key: str, value: Any) -> Markup:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = "number" if is_number else "query" if key == "query" else None
    return e("td", e("bdi", cell(key, value)), class_=kind)

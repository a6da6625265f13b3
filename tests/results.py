"""What a long run found out, kept as data beside the docs, and the part of a page that shows it.

`make soak` and `make bench` end by calling `keep`: it writes docs/results/NAME.json, its plots, and the part of the
page between the markers `<!-- results: NAME -->` and `<!-- end of results -->`. Nobody edits that part: `make check`
compares it, and the plots, with the data.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "results"


@dataclass(frozen=True)
class Table:
    """A table: a title, the heading of each column, and rows of text. `note` is a paragraph below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A plot: lines through points, or bars with names. `series` is name to points (x, y), or to (bar's name, height).

    `of` tells what is seen on it, for who does not see it.
    """

    file: str
    of: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float | str, float]]]
    kind: Literal["lines", "steps", "bars"] = "lines"


@dataclass(frozen=True)
class Result:
    """One measurement: the page that shows it, the command that repeats it, its tables and plots.

    `figures` is for programs: what a simulation is compared with, for one.
    """

    name: str
    page: str
    command: str
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    ran: str = ""


def keep(result: Result) -> Result:
    """Write the data, the plots, and the page's part; gives what was kept, with when and where it ran.

    Raises ValueError where the page has no markers for it.
    """
    from tests import plots  # matplotlib, which only the long runs install

    data = {**asdict(result), "ran": _where()}
    KEPT.mkdir(exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    (KEPT / f"{result.name}.json").write_text(text, "utf-8")
    kept = load(result.name)
    for plot in kept.plots:
        plots.draw(plot, KEPT / plot.file)
    page = ROOT / result.page
    before, _, after = _parts(page.read_text("utf-8"), result.name)
    page.write_text(f"{before}\n{markdown(kept)}\n{after}", "utf-8")
    return kept


def load(name: str) -> Result:
    """Read what was kept."""
    data = json.loads((KEPT / f"{name}.json").read_text("utf-8"))
    tables = [Table(**table) for table in data.pop("tables")]
    return Result(**{**data, "tables": tables, "plots": [Plot(**plot) for plot in data["plots"]]})


def shown(result: Result) -> str:
    """Give what its page shows of it now."""
    return _parts((ROOT / result.page).read_text("utf-8"), result.name)[1].strip("\n")


def markdown(result: Result) -> str:
    """Write the page's part."""
    blocks = [f"Written by `{result.command}`: {result.ran}."]
    for table in result.tables:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        blocks.append(f"**{table.title}**")
        blocks.append("\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines))
        blocks += [table.note] if table.note else []
    blocks += [f"![{plot.of}](results/{plot.file})" for plot in result.plots]
    return "\n\n".join(blocks)


def fingerprint(plot: Plot) -> str:
    """Give what the plot's file holds of its data."""
    return hashlib.sha256(json.dumps(asdict(plot), sort_keys=True).encode()).hexdigest()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _parts(page: str, name: str) -> tuple[str, str, str]:
    """Give the text up to and with the marker of the beginning, between the markers, and from the end's."""
    begin, end = f"<!-- results: {name} -->\n", "\n<!-- end of results -->"
    before, found, rest = page.partition(begin)
    inside, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no part for {name}: {begin.strip()} and {end.strip()}")
    return before + begin, inside, end + after


def _where() -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    cpu = next((line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), "")
    machine = f"{os.cpu_count()} cores{f' ({cpu})' if cpu else ''}, {platform.system()}"
    return f"{today}, {machine}, Python {platform.python_version()}"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return []

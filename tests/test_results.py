"""What the long runs keep is shown as it is, and what nobody may edit is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import results
from tests.results import Plot, Result, Table

RESULT = Result(
    name="example",
    page="docs/EXAMPLE.md",
    command="make bench",
    tables=[Table("A title", ["", "ms"], [["one | two", "1.5"], ["three", "2"]], "A note.")],
    plots=[Plot("example.svg", "What is seen", "s", "n", {"line": [(0, 1), (1, 2)]})],
    ran="today",
)
SHOWN = """Written by `make bench`: today.

**A title**

|  | ms |
| --- | --- |
| one \\| two | 1.5 |
| three | 2 |

A note.

![What is seen](results/example.svg)"""


def test_a_result_as_its_page_shows_it() -> None:
    assert results.markdown(RESULT) == SHOWN


def test_only_its_own_part_of_the_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    page = tmp_path / "docs" / "EXAMPLE.md"
    page.parent.mkdir()
    page.write_text(
        f"Before.\n\n<!-- results: other -->\n\nOther.\n\n<!-- end of results -->\n\n"
        f"<!-- results: example -->\n\n{SHOWN}\n\n<!-- end of results -->\n\nAfter.\n",
        "utf-8",
    )
    assert results.shown(RESULT) == SHOWN
    page.write_text("Before.\n", "utf-8")
    with pytest.raises(ValueError, match="<!-- results: example -->"):
        results.shown(RESULT)


def test_the_fingerprint_of_a_plot_is_that_of_its_data() -> None:
    (plot,) = RESULT.plots
    other = Plot(plot.file, plot.of, plot.x, plot.y, {"line": [(0, 1), (1, 3)]})
    assert results.fingerprint(plot) != results.fingerprint(other)

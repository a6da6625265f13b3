"""The table is written by a run that has seen every cell, and by no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests import results
from tests.faults import table
from tests.faults.register import FAULTS
from tests.faults.table import FAILED, PROPERTY, Cell, cells_of


@pytest.mark.parametrize(("last", "is_kept"), [("passed", True), ("failed", True), ("skipped", False), (None, False)])
def test_the_table_is_kept_where_every_cell_was_seen(monkeypatch: pytest.MonkeyPatch, last: Any, is_kept: bool) -> None:
    kept: list[results.Result] = []
    monkeypatch.setattr(table, "_seen", [])
    monkeypatch.setattr(results, "keep", kept.append)
    cells = list(cells_of(FAULTS))
    for outcome in ["passed"] * (len(cells) - 1) + [last]:
        fault, activity, driver = cells.pop()
        if outcome is None:
            continue
        # As in test_cell: a cell has failed until it has ended well, also where it is skipped in the middle.
        words = [FAILED, *fault.allowed(activity, driver)[:1]] if outcome == "passed" else [FAILED]
        said = [(PROPERTY, Cell(fault.name, activity, driver, word, 1.0, 1.0)._asdict()) for word in words]
        report = pytest.TestReport("test_cell", ("", 0, ""), {}, outcome, None, "call", user_properties=said)
        table.pytest_runtest_logreport(report)
    table.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace()))  # type: ignore[arg-type]
    assert bool(kept) == is_kept
    if last == "failed":
        assert [cell["word"] for cell in kept[0].figures["cells"]].count(FAILED) == 1

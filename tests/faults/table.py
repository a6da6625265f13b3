"""The table of docs/RELIABILITY.md: what each activity was told of each fault, as a whole run saw it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pytest

from tests import results
from tests.faults.activities import NAMES
from tests.faults.fault import Fault
from tests.faults.words import REQUESTS

PROPERTY = "fault cell"
NEVER = "–"
FAILED = "**failed**"  # what is written of a cell that was begun, unless it ends well
_seen: list[Cell] = []


class Cell(NamedTuple):
    """What one driver's activity was told."""

    fault: str
    activity: str
    driver: str
    word: str
    seconds: float  # until it was told
    recovery: float  # seconds until the first answer after the fault


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the cells: under pytest-xdist, in the process that all report to. The last word of each counts.

    One that is skipped, for what this machine does not have, was not seen.
    """
    told = [value for name, value in report.user_properties if name == PROPERTY]
    if report.when == "call" and told and not report.skipped:
        _seen.append(Cell(**told[-1]))  # type: ignore[arg-type]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table where every cell of it was seen: a part of it would be taken for the whole."""
    from tests.faults.register import FAULTS

    if hasattr(session.config, "workerinput"):
        return
    wanted = {(fault.name, activity, driver) for fault, activity, driver in cells_of(FAULTS)}
    if wanted == {(cell.fault, cell.activity, cell.driver) for cell in _seen}:
        results.keep(result(_seen))


def cells_of(faults: Sequence[Fault]) -> Iterator[tuple[Fault, str, str]]:
    """Give fault, activity and driver of each cell. Commands have one driver, which is psycopg."""
    for fault in faults:
        for activity in fault.expected:
            for driver in ("psycopg", "pg8000") if activity in REQUESTS else ("psycopg",):
                yield fault, activity, driver


def result(seen: Iterable[Cell]) -> results.Result:
    """Make the tables."""
    from tests.faults.register import FAULTS

    cells = list(seen)
    rows, times = [], []
    for fault in FAULTS:
        row, ours = [fault.name], [cell for cell in cells if cell.fault == fault.name]
        for activity in NAMES:
            words = {cell.driver: cell.word for cell in ours if cell.activity == activity}
            row.append(" / ".join(dict.fromkeys(words[driver] for driver in sorted(words, reverse=True))) or NEVER)
        rows.append(row)
        longest, recovery = max(cell.seconds for cell in ours), max(cell.recovery for cell in ours)
        times.append([fault.name, f"{longest:.2f}", f"{recovery:.2f}"])
    reasons = {reason: None for fault in FAULTS for reason in fault.never.values()}
    failed = sum(cell.word == FAILED for cell in cells)
    note = f"{len(cells)} cells, of which {failed} failed, with psycopg / pg8000 (one word where it is the same). "
    note += f"{NEVER}: {'; '.join(reasons)}." if reasons else ""
    return results.Result(
        name="faults",
        page="docs/RELIABILITY.md",
        command="make soak",
        tables=[
            results.Table("What was told", ["Fault", *NAMES], rows, note),
            results.Table("Times", ["Fault", "Seconds until told, at most", "Seconds to recovery, at most"], times),
        ],
        figures={"cells": [cell._asdict() for cell in cells]},
    )

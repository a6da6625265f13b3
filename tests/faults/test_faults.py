"""Every fault with everything that may be going on, with each driver: the table of docs/RELIABILITY.md, made by itself.

For each cell: the right answer or the right diagnosis, no wrong result, no write lost or doubled, no hang past the
deadline or what the fault allows a command, and afterwards it works without a restart, with no connection left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.fault import Fault
from tests.faults.register import FAULTS
from tests.faults.table import FAILED, Cell, cells_of
from tests.faults.world import WARM, World


def cells() -> Iterator[object]:
    """Give the cells; those that are not fast are for `make soak`."""
    for fault, activity, driver in cells_of(FAULTS):
        marks = () if activity in fault.fast else (pytest.mark.soak,)
        yield pytest.param(fault, activity, driver, marks=marks, id=f"{fault.name}-{activity}-{driver}")


@pytest.mark.parametrize(("fault", "activity", "driver"), list(cells()), indirect=["driver"])
def test_cell(
    fault: Fault,
    activity: str,
    driver: str,
    make_world: Callable[[Fault, str], World],
    record: Callable[[Cell], None],
) -> None:
    record(Cell(fault.name, activity, driver, FAILED, 0.0, 0.0))
    world = make_world(fault, activity)
    if world.is_request and not fault.is_cold:
        assert world.run(WARM).is_answered
    told = fault.strike(world)
    allowed = fault.allowed(activity, driver)
    print(f"\n{fault.name} - {activity} - {driver}: {told}")  # noqa: T201 - shown where the test fails, or with -s
    assert told.word in allowed, f"allowed is {allowed}"
    assert world.is_request or told.seconds < fault.longest, f"it may take {fault.longest:g} s"
    recovery = world.check()
    record(Cell(fault.name, activity, driver, told.word, told.seconds, recovery))

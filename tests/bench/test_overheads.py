"""What the benches of cold starts and invocations make of their measurements."""

import pytest

from bench import cold_start, cold_start_aws, lambda_handler
from tests import results


def cells(result: results.Result, row: str) -> list[str]:
    """Give the cells of the goal's row that begins so."""
    table = next(table for table in result.tables if "Met" in table.columns)
    (found,) = (cells for cells in table.rows if cells[0].startswith(row))
    return list(found[1:])


@pytest.mark.parametrize(("ours", "shown"), [(160.0, ["1.60", "yes"]), (161.0, ["1.61", "**no**"])])
def test_the_goal_of_an_invocation(ours: float, shown: list[str]) -> None:
    costs = {
        lambda_handler.BY_HAND: [100.0, 10.0, 100.0],
        lambda_handler.OURS: [ours, 10.0, ours],
        lambda_handler.LOGGING: [ours + 40, 50.0, ours + 40],
    }
    result = lambda_handler.report(costs)
    assert cells(result, lambda_handler.OURS) == ["<= 1.60", *shown]
    assert "The line in the log costs 40 us." in results.markdown(result)


def test_the_goals_of_cold_starts() -> None:
    walls = {
        cold_start.OURS: 410.0,
        cold_start.FASTAPI: 1000.0,
        cold_start.ALONE: 200.0,
        cold_start_aws.OURS: 300.0,
        cold_start_aws.FASTAPI: 1000.0,
    }
    costs = {name: [cold_start.Cost(wall, wall / 2)] * 3 for name, wall in walls.items()}
    result = cold_start.report(dict.fromkeys(cold_start.ROUND_TRIPS, costs))
    assert cells(result, f"{cold_start.OURS} / {cold_start.FASTAPI}, at 10 ms") == ["<= 0.40", "0.41", "**no**"]
    assert cells(result, f"{cold_start_aws.OURS} / {cold_start_aws.FASTAPI}, at 0 ms") == ["<= 0.40", "0.30", "yes"]
    assert "of FastAPI + SQLAlchemy: 0.26 at 0 ms, 0.26 at 10 ms." in results.markdown(result)

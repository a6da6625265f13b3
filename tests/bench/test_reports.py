"""What the benches make of their measurements: ratios of each turn, and goals that are met by the data alone."""

import pytest

from bench import connect, reads
from bench.peers import DRIZZLE, FLOOR, OURS, ratio
from tests import results


def test_a_ratio_is_the_median_of_the_ratios_of_each_turn() -> None:
    assert ratio([1, 30, 4], [1, 10, 1]) == 3


def goals(result: results.Result) -> dict[str, tuple[str, str]]:
    table = next(table for table in result.tables if "Met" in table.columns)
    return {row[0]: (row[2], row[3]) for row in table.rows}


@pytest.mark.parametrize(("drizzle", "met"), [(125.0, "yes"), (124.0, "**no**")])
def test_the_goals_of_reads(drizzle: float, met: str) -> None:
    cpu = dict.fromkeys([*reads.PEERS, reads.PGBENCH, reads.PGBENCH_UNPREPARED], 50.0)
    cpu |= {DRIZZLE: drizzle, reads.RAW: 45.0}
    costs = {name: [reads.Cost(cost, 1e6 / cost)] * 3 for name, cost in cpu.items()}
    result = reads.report(costs, {name: [reads.Cost(99.0, 10_000.0)] for name in reads.FEW})
    found = goals(result)
    one, shared = "client on one processor: this pool / ", "sharing all: this pool / "
    assert [found[name][1] for name in found if name.startswith(one + DRIZZLE)] == [met, met]
    assert [found[name] for name in found if name.startswith(one + reads.RAW)] == [("0.90", "yes")] * 2
    assert [found[name] for name in found if name.startswith(shared + DRIZZLE)] == [("1.00", "**no**")] * 2
    assert [found[name] for name in found if name.startswith(shared + reads.RAW)] == [("1.00", "yes")] * 2
    for row in ("50 | 1.00 | 20000 | 1.00", "99 | 1.00 | 10000 | 1.00"):
        assert results.markdown(result).count(f"\n| this pool, psycopg | {row} |") == 1


def test_the_goals_of_connecting() -> None:
    firsts = dict.fromkeys(connect.PEERS, 90.0) | {OURS: 64.0, DRIZZLE: 80.0, FLOOR: 40.0}
    flights = dict.fromkeys(connect.PEERS, connect.Flights(6, 1)) | {DRIZZLE: connect.Flights(8, 2)}
    flights[FLOOR] = connect.Flights(3, 1)
    encrypted = {
        name: connect.Measured(flights[name], {at: [connect.Turn(first, 1.0)] * 3 for at in connect.ROUND_TRIPS})
        for name, first in firsts.items()
    }
    plain = {name: of for name, of in encrypted.items() if name != connect.DIRECT}
    result = connect.report({"disable": plain, "require": encrypted})
    found = goals(result)
    assert found[f"first row: {OURS} / Drizzle"] == ("0.80", "yes")
    assert found[f"first row: {OURS} / the floor"] == ("1.60", "yes")
    assert found[f"first row: {connect.LATER} / the floor"] == ("2.25", "**no**")
    assert found["flights of a warm read: this pool and Drizzle"] == ("1 and 2", "yes")
    assert f"1.75 for {OURS} (6 flights)" in results.markdown(result)

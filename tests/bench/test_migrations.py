"""The bench of migrations: the tools do what is measured, and the goal is met by the data alone."""

from pathlib import Path

import psycopg
import pytest

from bench import migration_tools, migrations
from bench.migration_tools import ALEMBIC, DEPLOY, Cost
from bench.migrations import Flights
from tests.servers.postgres import Postgres


def test_both_apply_every_revision_and_then_find_nothing_pending(own_postgres: Postgres, tmp_path: Path) -> None:
    url = own_postgres.admin_url()
    for make in (migration_tools.ours, migration_tools.alembic):
        tool = make(tmp_path / make.__name__, 3)
        flights = migrations.count(tool, url)
        assert flights.nothing < flights.first
        with psycopg.connect(f"{url.rpartition('/')[0]}/{tool.name.lower()}") as connection:
            rows = connection.execute("SELECT tablename FROM pg_tables WHERE tablename ~ '^t[0-9]$' ORDER BY 1")
            assert rows.fetchall() == [("t0",), ("t1",), ("t2",)]


@pytest.mark.parametrize(("deploy", "met"), [(50.0, ["0.50", "yes"]), (51.0, ["0.51", "**no**"])])
def test_the_goal_is_half_of_alembic(deploy: float, met: list[str]) -> None:
    labels = [f"nothing pending, {number} revisions" for number in migrations.NOTHING_PENDING] + ["first run of 20"]
    costs = {DEPLOY: [Cost(30, deploy)] * 3, ALEMBIC: [Cost(100, 100)] * 3}
    flights = {DEPLOY: Flights(40, 4), ALEMBIC: Flights(50, 16)}
    result = migrations.report(dict.fromkeys(labels, costs), flights)
    by_the_clock, _, counted, goals = result.tables
    assert goals.rows[0][2:] == tuple(met)
    assert by_the_clock.rows[-1] == ("first run of 20", f"{deploy:.0f}", f"100 ({deploy / 100:.2f})")
    assert counted.rows == [("nothing pending", "4", "16"), ("first run of 20", "40", "50")]

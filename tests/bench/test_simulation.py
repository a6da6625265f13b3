"""The model of many instances: it keeps the pool's rules and the server's limits, and the formula agrees with it."""

import re
from dataclasses import replace

import pytest

from bench.budget import budget
from bench.fleet_model import simulate
from bench.scenario import Freeze, Outcome, Scenario
from bench.simulation import COMMON, OURS, SERVICE, UNLIMITED, against, comparison_plot, quiet, scenario_of, storms_in
from shared.db.session import MARGIN
from shared.db.sizes import pool_size
from shared.settings import Settings
from tests.results import ROOT

STORM = {
    "storm": "freeze of half",
    "way": "direct",
    "instances": 10,
    "users": 2,
    "interval": 0.5,
    "held": [[0.1, 0.0], [0.5, 12.0], [30.0, 10.0], [40.0, 11.0]],
    "outage": None,
    "frozen": [5.0, 35.0],
}


def test_our_limits_are_those_of_the_code() -> None:
    size = pool_size(Settings.read({"VERCEL": "1", "DATABASE_URL": "postgresql://u@db.example.com/x"}))
    assert (OURS.maximum, OURS.idle, OURS.surplus) == (size.max_size, size.idle_timeout, size.surplus_timeout)
    assert OURS.server == MARGIN


def test_the_same_seed_gives_the_same_run() -> None:
    scenario = quiet(20, rate=0.5)
    assert simulate(scenario, 3) == simulate(scenario, 3) != simulate(scenario, 4)


@pytest.mark.parametrize("concurrency", [1, 10])
@pytest.mark.parametrize("rate", [1 / 60, 0.1, 2.0])
def test_the_formula_agrees_with_the_simulation(rate: float, concurrency: int) -> None:
    scenario = quiet(40, rate, concurrency)
    means = [simulate(scenario, seed).mean(30, scenario.seconds) for seed in range(3)]
    formula = budget(scenario)
    assert formula.expected == pytest.approx(sum(means) / len(means), rel=0.07)
    assert max(means) <= formula.usual_peak
    assert simulate(scenario).peak() <= formula.worst


def test_the_example_on_the_page_is_the_formulas() -> None:
    page = (ROOT / "docs" / "SCALING.md").read_text("utf-8")
    example = " ".join(page.partition("**Example.**")[2].partition("###")[0].split())
    said = [tuple(map(int, found)) for found in re.findall(r"about (\d+), and (\d+) are seldom exceeded", example)]
    scenario = quiet(200, 1 / 60, concurrency=1)
    budgets = [budget(scenario), budget(replace(scenario, pooling=replace(OURS, idle=10.0)))]
    assert said == [(round(one.expected), round(one.usual_peak)) for one in budgets]


def test_one_request_at_a_time_takes_one_connection() -> None:
    assert simulate(quiet(30, rate=5.0, concurrency=1)).peak() == 30


def burst(pooling: object = OURS, **changes: object) -> Scenario:
    scenario = Scenario(10, 60, OURS, SERVICE, users=10, interval=600, burst=True, slots=UNLIMITED)
    return replace(scenario, pooling=pooling, **changes)  # type: ignore[arg-type]


def test_the_server_closes_what_frozen_instances_hold() -> None:
    left = simulate(burst())
    assert left.at(0.5) == 100
    assert left.at(1 + MARGIN + 0.2) == 10  # beyond the first of each
    assert left.at(20 + MARGIN + 0.2) == 0


def test_a_common_pool_that_is_frozen_holds_all_of_it() -> None:
    assert simulate(burst(COMMON)).at(60) == 100
    awake = simulate(burst(COMMON, freeze_after=None))
    assert (awake.at(29), awake.at(31)) == (100, 0)


def test_a_full_server_is_waited_for() -> None:
    outcome = simulate(burst(slots=40))
    assert outcome.peak() == 40
    assert outcome.refused > 0
    assert len(outcome.waits) == 100
    assert max(outcome.waits) > 0.25


def test_a_pooler_opens_no_more_than_its_size() -> None:
    outcome = simulate(burst(pooler=5))
    assert outcome.peak() == 5
    assert len(outcome.waits) == 100


def test_a_request_waits_where_the_pool_or_the_instance_has_no_room() -> None:
    narrow = simulate(burst(replace(OURS, maximum=2)))
    assert narrow.peak() == 20
    assert len(narrow.waits) == 100
    assert simulate(burst(concurrency=3)).peak() == 30


def test_requests_that_an_instance_takes_in_turn_do_not_meet_at_the_pool() -> None:
    assert simulate(burst(service=((1, 0.002),), handling=0.02)).peak() == 10


def test_those_who_are_stopped_are_asked_nothing_and_lose_what_they_held() -> None:
    steady = Scenario(10, 60, OURS, ((1, 0.01),), users=1, interval=0.5, freeze_after=None)
    outcome = simulate(replace(steady, freezes=[Freeze(10, 40, 5)]))
    assert (outcome.at(9), outcome.at(10 + 20 + MARGIN + 0.6), outcome.at(45)) == (10, 5, 10)


def test_users_who_were_kept_waiting_go_on_together() -> None:
    """They ask at the same moment from then on, so that an instance keeps a connection for each."""
    apart = Scenario(40, 60, OURS, SERVICE, users=2, interval=0.5, freeze_after=None)
    outcome = simulate(replace(apart, freezes=[Freeze(10, 40, 40)]))
    assert outcome.at(9) < 70
    assert outcome.at(59) == 80


def test_an_outcome_tells_its_mean_over_any_span() -> None:
    outcome = Outcome([(0.0, 0), (1.0, 4), (3.0, 2)])
    assert outcome.mean(0, 4) == pytest.approx((0 + 8 + 2) / 4)
    assert outcome.mean(2, 4) == pytest.approx((4 + 2) / 2)
    assert (outcome.at(0.5), outcome.at(1.0), outcome.at(9)) == (0, 4, 2)


def test_storms_are_found_and_compared() -> None:
    found = list(storms_in({"direct": [STORM, {"other": 1}], "note": "text"}))
    assert found == [STORM]
    scenario = scenario_of(STORM)
    assert (scenario.seconds, list(scenario.freezes)) == (40.0, [Freeze(5.0, 35.0, 5)])
    table = against(found)
    assert [len(row) for row in table.rows] == [len(table.columns)]
    assert table.rows[0][:3] == ["freeze of half, direct", "10", "12"]
    assert comparison_plot(STORM).series["measured"][-1] == (40.0, 11.0)

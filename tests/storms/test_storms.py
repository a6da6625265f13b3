"""Storms, each with and without a pooler: no request fails that need not, and no write is lost or doubled."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ops.postgres_server import StopMode
from shared.db.session import MARGIN
from shared.db.sizes import pool_size
from shared.settings import Settings
from tests.migrations.conftest import Project
from tests.servers.postgres import Postgres
from tests.shared.db.watching import until
from tests.storms import fleet as fleets
from tests.storms import record
from tests.storms.fleet import Fleet, Way
from tests.storms.function import ENVIRONMENT, Function
from tests.storms.load import Load
from tests.storms.storm import Outcome, Storm, storm

pytestmark = pytest.mark.soak

MANY = 200
STEP = 8  # instances that a deployment replaces at a time
SLACK = 1.0  # seconds that the samples and a busy machine blur
SIZE = pool_size(Settings.read({"VERCEL": "1", "DATABASE_URL": "postgresql://u@db.example.com/x"}))
BOTH = ("direct", "pooler")
STORMS: Mapping[str, tuple[str, ...]] = {
    "burst from zero": BOTH,
    "larger burst from zero": BOTH,
    "freeze of half": BOTH,
    "redeploy while migrating": BOTH,
    "server restart, fast": BOTH,
    "server restart, immediate": BOTH,
    "pooler restart": ("pooler",),
}

Found = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="module")
def found() -> Iterator[Found]:
    """Collect what the storms find; it is kept where all of them ran to a good end."""
    outcomes: Found = {}
    yield outcomes
    every = [(name, way) for name, ways in STORMS.items() for way in ways]
    if set(outcomes) == set(every):
        record.keep([outcomes[one] for one in every], SIZE)


def end(one: Storm, found: Found) -> None:
    """Check a storm after its end, and keep what it found."""
    outcome = one.check()
    found[outcome.storm, outcome.way] = outcome


def test_forty_instances_wake_at_once(fleet: Fleet, found: Found) -> None:
    with storm("burst from zero", fleet, Load(users=5, interval=2.0, burst=True)) as burst:
        burst.goes_on(10)
    end(burst, found)


def test_half_of_the_instances_are_frozen(fleet: Fleet, found: Found) -> None:
    """The server closes what they hold, soon after the limits for idle connections."""
    half, others = fleet.members[::2], fleet.members[1::2]
    surplus, first = SIZE.surplus_timeout + MARGIN, SIZE.idle_timeout + MARGIN
    with storm("freeze of half", fleet, Load()) as freeze:
        freeze.goes_on(10)
        frozen = freeze.freeze(half)
        until(lambda: time.monotonic() > frozen + first + SLACK, timeout=60)
        freeze.load.more(1, others)
        freeze.thaw(half, frozen)
        freeze.goes_on(10)
    if fleet.way.pooler is None:
        held = freeze.watch.held({member.name for member in half}, since=frozen)
        later = [number for moment, number in held if frozen + surplus + SLACK < moment < frozen + first + SLACK]
        assert max(later) <= len(half)
        assert later[-1] == 0
    end(freeze, found)


def test_a_deployment_replaces_every_instance_and_migrates(fleet: Fleet, tmp_path: Path, found: Found) -> None:
    project = Project(tmp_path)
    project.versions.add("29990101000000_add_price", "ALTER TABLE item ADD COLUMN price int;")
    index = "CREATE INDEX CONCURRENTLY ledger_number ON ledger (number);"
    project.versions.add("29990101000100_index_ledger", index, header="-- transaction: none")
    direct = fleet.way.server.url(fleet.way.database)
    variables = {**ENVIRONMENT, "APP_ENV": "production", "DATABASE_URL": fleet.way.url, "DIRECT_URL": direct}
    before = fleet.members[:]
    with storm("redeploy while migrating", fleet, Load()) as deploy:
        deploy.goes_on(10)
        with project.start("migrations", "deploy", **variables) as migration:
            while before:
                old, before = before[:STEP], before[STEP:]
                deploy.load.add(fleet.start(len(old)))
                deploy.load.retire(old)
                for member in old:
                    member.terminate()
                fleet.take_out(old)
            output, _ = migration.communicate(timeout=60)
        assert migration.returncode == 0, output
        deploy.goes_on(10)
    end(deploy, found)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_server_restarts(fleet: Fleet, server: Postgres, mode: StopMode, found: Found) -> None:
    restarts(f"server restart, {mode}", fleet, lambda: server.server.stop(mode), server.server.start, found)


@pytest.mark.parametrize("way", ["pooler"], indirect=True)
def test_the_pooler_restarts(fleet: Fleet, found: Found) -> None:
    pooler = fleet.way.pooler
    assert pooler is not None
    restarts("pooler restart", fleet, pooler.stop, pooler.start, found)


def restarts(name: str, fleet: Fleet, stop: Callable[[], None], start: Callable[[], None], found: Found) -> None:
    with storm(name, fleet, Load()) as one:
        one.goes_on(10)
        one.outage(stop, start)
        one.goes_on(20)
    end(one, found)


def test_two_hundred_instances_wake_at_once(function: Function, way: Way, found: Found) -> None:
    with fleets.running(function, way, MANY) as fleet:
        fleet.load_code()  # two cores would take as long for it as a request may wait for a connection
        with storm("larger burst from zero", fleet, Load(users=2, interval=5.0, burst=True)) as burst:
            burst.goes_on(3)
        end(burst, found)

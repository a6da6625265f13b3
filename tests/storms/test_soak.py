"""An hour of one instance, compressed into minutes: nothing grows, and nothing fails that should not."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from tests.servers.postgres import APP
from tests.shared.db.watching import until
from tests.storms import errands, fleet, hour
from tests.storms.conftest import MakeWay
from tests.storms.fleet import Fleet
from tests.storms.function import Function
from tests.storms.hour import RATE, ROUNDS, SECONDS, Hour

pytestmark = pytest.mark.soak


def test_an_hour_of_one_instance(function: Function, make_way: MakeWay) -> None:
    """Two instances at once: one on the server itself, one behind the pooler."""
    with ExitStack() as stack:
        ways = [stack.enter_context(make_way(name)) for name in ("direct", "pooler")]
        fleets = [stack.enter_context(fleet.running(function, way, 1)) for way in ways]
        hours = [Hour(one.members[0], one.way.name) for one in fleets]
        for each in hours:
            asyncio.run(errands.fill(each.member.instance.port))
        begun = time.monotonic()
        for number in range(ROUNDS):
            asyncio.run(one_round(hours, number))
            for one, its_hour in zip(fleets, hours, strict=True):
                its_hour.sample()
                end_connections(one, while_frozen=number % 2 == 1)
        seconds = time.monotonic() - begun
    for each in hours:
        each.report()
    for each in hours:
        assert each.wrong == []
        for name in ("threads", "descriptors", "users"):
            first, last = each.thirds(name)
            assert max(last) <= max(first), f"{each.way}: {name} grow"
        assert max(sample.connections for sample in each.samples) <= errands.USERS, each.way
        assert each.growth <= hour.GROWTH, f"{each.way}: memory grows by {each.growth:.1f} MB"
    hour.keep(hours, seconds)


async def one_round(hours: Sequence[Hour], number: int) -> None:
    """Have each instance answer its share of the hour."""
    count = RATE * SECONDS // ROUNDS
    told = await asyncio.gather(*(errands.run(each.member.instance.port, count, seed=number) for each in hours))
    for each, (served, wrong) in zip(hours, told, strict=True):
        each.served += served
        each.wrong += wrong


def end_connections(one: Fleet, *, while_frozen: bool) -> None:
    """End every connection on the server, as a long freeze, a failover or an operator does."""
    (member,), way = one.members, one.way
    if while_frozen:
        member.freeze()
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s AND datname = %s"
    way.server.admin().execute(end, [APP, way.database])
    if way.pooler is not None:
        pooler = way.pooler
        until(lambda: not [row for row in pooler.console("SHOW SERVERS") if row["database"] == way.database])
    if while_frozen:
        member.thaw()

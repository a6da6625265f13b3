"""Faults of the process that uses the database: frozen and thawed, forked, with a clock that somebody sets."""

from __future__ import annotations

from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import REQUESTS, lost
from tests.faults.world import CHILD, STRUCK, World
from tests.servers.process import freeze, thaw
from tests.shared.db.watching import running, sessions, terminate, until

OURS = dict.fromkeys(REQUESTS, "answered")
UNKNOWN = "500 transaction_resolution_unknown"
# At thawing the server's goodbye is there, and the time is over: which is seen first is a matter of luck.
LATE = "504 deadline_exceeded | 503 idle_session_timeout"
NONE_IDLE = dict.fromkeys(("migration", "backup"), "a command keeps no connection idle")
NO_LIMIT = dict.fromkeys(("migration", "backup"), "a command has no deadline")
HOUR = 3600.0
NO_CLOCK = dict.fromkeys(("migration", "backup"), "a command keeps no time by the wall clock")
NO_FORK = dict.fromkeys(("migration", "backup"), "a command does not fork")


@fault("frozen while idle, its sessions ended", OURS, never=NONE_IDLE)
def frozen_idle(world: World) -> Told:
    """The platform freezes the instance between two requests, and the server ends its session."""
    process = world.in_instance().process
    freeze(process)
    _end_sessions(world)
    thaw(process)
    return world.run()


@fault("frozen under way, its sessions ended", lost("admin_shutdown"))
def frozen_under_way(world: World) -> Told:
    """The process is frozen with the statement on the way, and is back while there is time."""
    if world.is_request:
        world.in_instance()
    end = world.caught()
    process = world.process
    freeze(process)
    _end_sessions(world)
    world.proxy.resume()
    thaw(process)
    return end()


@fault(
    "frozen under way, beyond its deadline and the server's limits",
    {"read": LATE, "write": LATE, "COMMIT": UNKNOWN, "sign-in": LATE},
    never={"health": "it answers in time, or is frozen", **NO_LIMIT},
)
def frozen_long(world: World) -> Told:
    """The process is frozen with the statement on the way, until the server itself ends what it left open."""
    world.variables |= {"DATABASE_POOL_IDLE_TIMEOUT": "1", "REQUEST_TIMEOUT": "1"}
    process = world.in_instance().process
    if world.activity.name == "write":
        world.activity.strike = b"BEGIN"  # for one that has BEGIN and waits for the rest, the server has no limit
    end = world.caught()
    freeze(process)
    until(lambda: not sessions(world.postgres, world.database))
    world.proxy.resume()
    thaw(process)
    return end()


@fault("fork while idle", OURS, never=NO_FORK)
def fork_idle(world: World) -> Told:
    """The process forks with a connection idle; child and parent send a request each."""
    instance = world.in_instance()
    connections = world.proxy.total.connections
    told = {}
    for number, ask in ((CHILD, instance.fork), (STRUCK, instance.ask)):
        world.ask(ask)
        told[number] = world.run(number)
    assert told[CHILD].is_answered, told[CHILD]
    assert world.proxy.total.connections == connections + 1, "the child has one of its own, the parent keeps its own"
    return told[STRUCK]


@fault("fork under way", OURS, never=NO_FORK)
def fork_under_way(world: World) -> Told:
    """The process forks with a statement on the way in another thread; the child sends a request, too."""
    instance = world.in_instance()
    connections = world.proxy.total.connections
    end = world.caught()
    world.ask(instance.fork)
    child = world.begin(CHILD)
    if world.activity.name == "COMMIT":  # the transaction under way has what the child's wants
        until(lambda: "transactionid" in [s.wait_event for s in running(world.postgres, world.database, "UPDATE")])
    else:
        child()
    world.proxy.resume()
    told = end()
    assert child().is_answered, child()
    assert world.proxy.total.connections == connections + 1, "the child has one of its own, the parent keeps its own"
    world.ask(instance.ask)
    return told


@fault("clock an hour ahead while idle", OURS, never=NO_CLOCK)
def ahead_idle(world: World) -> Told:
    """Somebody sets the clock forwards between two requests."""
    return _clock_idle(world, HOUR)


@fault("clock an hour back while idle", OURS, never=NO_CLOCK)
def back_idle(world: World) -> Told:
    """Somebody sets the clock back between two requests."""
    return _clock_idle(world, -HOUR)


@fault("clock an hour ahead under way", OURS, never=NO_CLOCK)
def ahead_under_way(world: World) -> Told:
    """Somebody sets the clock forwards with the statement on the way."""
    return _clock_under_way(world, HOUR)


@fault("clock an hour back under way", OURS, never=NO_CLOCK)
def back_under_way(world: World) -> Told:
    """Somebody sets the clock back with the statement on the way."""
    return _clock_under_way(world, -HOUR)


def _clock_idle(world: World, ahead: float) -> Told:
    world.in_instance().set_clock(ahead)
    return world.run()


def _clock_under_way(world: World, ahead: float) -> Told:
    instance = world.in_instance()
    end = world.caught()
    instance.set_clock(ahead)
    world.proxy.resume()
    return end()


def _end_sessions(world: World) -> None:
    terminate(world.postgres, *(session.pid for session in sessions(world.postgres, world.database)))

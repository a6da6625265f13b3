"""Faults of the network between an instance and its database."""

from __future__ import annotations

import pytest

from shared import db
from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import ANSWERED, REQUESTS, lost, no_connection
from tests.faults.world import STRUCK, World
from tests.shared.db.watching import sessions, until

TRANSACTIONS = ("write", "COMMIT")
WITHIN = 9  # bytes of an answer that arrive: the middle of a message, whatever it is
CONNECTING = (1, 30, 130, 250, 500)  # bytes of the server: within its words on the password, and its parameters
LOST = lost("connection_failure")
NO_ANSWER = "503 | 503 deadline_exceeded"  # the check itself may be over before the answer has to be given


def ended(world: World, *, is_done: bool) -> Told:
    """Run the activity; a COMMIT whose outcome nobody knows has been done by the server, or has not."""
    told = world.run()
    if world.activity.name == "COMMIT":
        until(lambda: not sessions(world.postgres, world.database))  # it does nothing any more
        assert world.rows(f"SELECT count(*) FROM ledger WHERE n = {STRUCK}") == [(int(is_done),)]
    return told


@fault("refused", no_connection("connection_refused"), is_cold=True, fast=REQUESTS)
def refused(world: World) -> Told:
    """Nobody listens at the address."""
    world.proxy.refuse()
    try:
        return world.run()
    finally:
        world.proxy.accept()


@fault("accepts, and is silent", no_connection("connection_timeout"), is_cold=True)
def silent(world: World) -> Told:
    """Somebody takes the connection and says nothing."""
    world.proxy.silence()
    try:
        return world.run()
    finally:
        world.proxy.accept()
        world.proxy.cut("rst")


@fault(
    "black hole under way",
    {
        **dict.fromkeys(REQUESTS, "504 deadline_exceeded"),
        "COMMIT": LOST["COMMIT"],
        "health": NO_ANSWER,
        "migration": "exit 6",
        "backup": "exit 16",
    },
    longest=45.0,  # who is cut off notices after 30
)
def black_hole(world: World) -> Told:
    """From the statement on, no packet of the connection arrives on either side, or is acknowledged."""
    world.proxy.on("client", world.activity.strike, do="unplug")
    try:
        return world.run()
    finally:
        # Who is cut off hears no goodbye either: the server finds out by itself, where the activity waits for that.
        if world.is_request:
            world.proxy.cut("rst")


@fault("RST before the statement arrives", LOST, fast=TRANSACTIONS)
def reset_before(world: World) -> Told:
    """The connection is reset before the server has the statement."""
    world.proxy.on("client", world.activity.strike, do="rst")
    return ended(world, is_done=False)


@fault("RST in place of the answer", LOST, fast=REQUESTS)
def reset_answer(world: World) -> Told:
    """The server has done it, and the connection is reset in place of the answer."""
    world.proxy.on("client", world.activity.strike, do="rst", when="answer")
    return ended(world, is_done=True)


@fault("FIN in place of the answer", LOST, fast=TRANSACTIONS)
def end_answer(world: World) -> Told:
    """The server has done it, and the connection ends in place of the answer."""
    world.proxy.on("client", world.activity.strike, do="fin", when="answer")
    return ended(world, is_done=True)


@fault("FIN within the result", LOST, fast=REQUESTS)
def end_within(world: World) -> Told:
    """The connection ends after the first bytes of the result."""
    world.proxy.on("client", world.activity.strike, do="fin", when="answer", carried=WITHIN)
    return ended(world, is_done=True)


@fault("cut after 1 to 500 bytes while connecting", ANSWERED, is_cold=True, fast=REQUESTS)
def cut_while_connecting(world: World) -> Told:
    """The connection is cut once after each of five numbers of the server's bytes."""
    told = []
    for number, carried in enumerate(CONNECTING, start=10):
        db.close_db(grace=0)
        trap = world.proxy.on("server", carried, do="fin")
        told.append(world.run(number))
        trap.wait()
    return max(told, key=lambda one: (not one.is_answered, one.seconds))


@fault(
    "1 s of latency",
    {
        **{activity: ANSWERED[activity] for activity in ("read", "health", "migration")},
        **dict.fromkeys(("write", "COMMIT", "sign-in"), "504 deadline_exceeded"),
    },
    never={"backup": "at a second each the questions of pg_dump take minutes, and then it is done"},
    longest=90.0,  # a migration makes some fifty round trips
)
def latency(world: World) -> Told:
    """Each round trip takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.proxy, "delay", 0.5)
        told = world.run()
    assert told.seconds >= 1.0
    return told


@fault(
    "10 s of latency",
    {
        **dict.fromkeys(REQUESTS, "504 deadline_exceeded"),
        "health": NO_ANSWER,
        "migration": "exit 4",
        "backup": "exit 4",
    },
)
def long_latency(world: World) -> Told:
    """Each round trip takes ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.proxy, "delay", 5.0)
        told = world.run()
    world.proxy.cut("rst")
    return told


@fault("one byte at a time", ANSWERED, fast=REQUESTS)
def trickle(world: World) -> Told:
    """Every byte travels alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.proxy, "byte_by_byte", True)
        patch.setattr(world.proxy, "largest", 0)
        told = world.run()
        assert world.proxy.largest == 1
    return told

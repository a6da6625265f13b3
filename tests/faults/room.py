"""Faults of room: a server, or a role, that takes no more connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from tests.faults.activities import NAMES, Told
from tests.faults.fault import fault
from tests.faults.words import ANSWERED, REQUESTS, no_connection
from tests.faults.world import World

REFUSED = b"C53300"  # the SQLSTATE in the server's answer to who wants to log in
AS_SERVER = "as where the server is full"


@contextmanager
def crowd(url: str) -> Iterator[ExitStack]:
    """Connect until there is no room left; closing what is given makes room."""
    with ExitStack() as guests:
        try:
            while True:
                guests.enter_context(psycopg.connect(url))
        except psycopg.OperationalError:
            yield guests


def limit_role(world: World) -> None:
    """Let the activity's role have two connections, for the time of the cell."""
    alter = "ALTER ROLE app CONNECTION LIMIT"
    world.stack.callback(lambda: world.postgres.admin().execute(f"{alter} -1"))
    world.postgres.admin().execute(f"{alter} 2")


def room_comes(world: World) -> Told:
    """Make room once the activity was refused."""
    refused = world.proxy.on("server", REFUSED)
    with crowd(world.postgres.url("postgres")) as guests:
        end = world.begin()
        refused.wait()
        guests.close()
        return end()


@fault("too many clients, room comes in time", ANSWERED, server="own", is_cold=True)
def server_full(world: World) -> Told:
    """Every slot of the server is taken, and some are free again before the deadline."""
    return room_comes(world)


@fault("too many clients, no room comes", no_connection("too_many_connections"), server="own", is_cold=True)
def server_stays_full(world: World) -> Told:
    """Every slot of the server stays taken."""
    with crowd(world.postgres.url("postgres")):
        return world.run()


@fault("role's connection limit, room comes in time", ANSWERED, server="own", is_cold=True)
def role_full(world: World) -> Told:
    """The role has as many connections as it may, and fewer before the deadline."""
    limit_role(world)
    return room_comes(world)


@fault(
    "role's connection limit, no room comes",
    dict.fromkeys(REQUESTS, "503 too_many_connections_for_role"),
    never=dict.fromkeys(NAMES[len(REQUESTS) :], AS_SERVER),
    server="own",
    is_cold=True,
)
def role_stays_full(world: World) -> Told:
    """The role keeps as many connections as it may have."""
    limit_role(world)
    with crowd(world.postgres.url("postgres")):
        return world.run()

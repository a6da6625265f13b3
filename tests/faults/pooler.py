"""Faults of a transaction pooler between the activity and the server: full, restarted, never the same backend."""

from __future__ import annotations

import psycopg
import pytest

from tests.faults.activities import NAMES, Told
from tests.faults.fault import fault
from tests.faults.room import crowd
from tests.faults.words import ANSWERED, REQUESTS, lost
from tests.faults.world import WARM, World
from tests.servers import binaries
from tests.servers import pgbouncer as pgbouncers
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import APP, APP_PASSWORD
from tests.shared.db.watching import name_of, until

MANY = range(100, 120)
COMMANDS = NAMES[len(REQUESTS) :]
REFUSED = dict.fromkeys(COMMANDS, "exit 11")  # they need the server itself, and say so
NEVER = dict.fromkeys(COMMANDS, "through a pooler it is refused (exit 11)")


def through(world: World, flavour: str = binaries.PGBOUNCERS[-1], **settings: str) -> PgBouncer:
    """Lead the activity's way through a PgBouncer with these settings."""
    directory = world.postgres.server.data_dir.parent.with_name(f"fault-pooler-{name_of(world.database)}")
    running = pgbouncers.running(flavour, directory, world.postgres.port, {APP: APP_PASSWORD}, settings)
    try:
        pooler = world.stack.enter_context(running)
    except binaries.Unavailable as error:
        pytest.skip(str(error))
    world.proxy.target = ("127.0.0.1", pooler.port)
    world.take(f"{world.url}?pgbouncer=true")
    leave = world.leave

    def leave_both() -> dict[str, int]:
        statistics = leave()
        if world.is_request:  # the pooler keeps its own sessions, and is no client that was left behind
            pooler.disconnect(name_of(world.database))
        return statistics

    world.leave = leave_both
    return pooler


def only_request(words: dict[str, str]) -> dict[str, str]:
    return {name: words[name] for name in REQUESTS}


@fault("pooler has no room for a client, room comes in time", only_request(ANSWERED), never=NEVER, is_cold=True)
def full(world: World) -> Told:
    """Its max_client_conn is reached, and no more so before the deadline."""
    pooler = through(world, max_client_conn="4")
    refused = world.proxy.on("server", b"no more connections allowed")
    with crowd(pooler.url(world.postgres.url("postgres"))) as guests:
        end = world.begin()
        refused.wait()
        guests.close()
        return end()


@fault(
    "pooler has no room for a client",
    {**dict.fromkeys(REQUESTS, "503 pooler_too_many_clients"), **REFUSED},
    is_cold=True,
)
def stays_full(world: World) -> Told:
    """Its max_client_conn stays reached."""
    pooler = through(world, max_client_conn="4")
    with crowd(pooler.url(world.postgres.url("postgres"))):
        told = world.run()
    world.variables["DIRECT_URL"] = world.database
    return told


def busy(world: World, pooler: PgBouncer) -> psycopg.Connection[tuple[object, ...]]:
    """Have another client keep the pooler's only connection to the database in a transaction."""
    rival = psycopg.connect(pooler.url(world.postgres.url(name_of(world.database))), prepare_threshold=None)
    rival.execute("SELECT 1")
    return rival


@fault("pooler's connections are taken, one is free in time", only_request(ANSWERED), never=NEVER, is_cold=True)
def taken(world: World) -> Told:
    """Another client's transaction keeps the pooler's only connection, and ends before the deadline."""
    pooler = through(world, default_pool_size="1")
    with busy(world, pooler) as rival:
        end = world.begin()
        until(lambda: any(row["cl_waiting"] for row in pooler.console("SHOW POOLS")))
        rival.rollback()
        return end()


@fault(
    "pooler's connections stay taken (query_wait_timeout)",
    # A transaction waits once more, for as long as there is time.
    dict.fromkeys(REQUESTS, "503 pooler_no_free_connection"),
    never=NEVER,
    is_cold=True,
)
def stay_taken(world: World) -> Told:
    """Another client's transaction keeps the pooler's only connection for longer than a client may wait."""
    pooler = through(world, default_pool_size="1", query_wait_timeout="1")
    with busy(world, pooler):
        return world.run()


@fault("pooler restarted under way", only_request(lost("connection_failure")), never=NEVER, is_cold=True)
def restarted(world: World) -> Told:
    """The pooler ends with the statement on the way, and is back while there is time."""
    pooler = through(world)
    assert world.run(WARM).is_answered
    end = world.caught()
    pooler.stop()
    pooler.start()
    world.proxy.resume()
    return end()


def changing(world: World, flavour: str) -> Told:
    """Send many requests, each transaction of which meets another backend."""
    pooler = through(world, flavour, server_lifetime="0")
    url = pooler.url(world.postgres.url(name_of(world.database)))
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
        pids = [client.execute("SELECT pg_backend_pid()").fetchone() for _ in range(3)]
        assert len(set(pids)) == 3
    return max((world.run(number) for number in MANY), key=lambda told: (not told.is_answered, told.seconds))


@fault("pooler changes the backend at each transaction", only_request(ANSWERED), never=NEVER, is_cold=True)
def changing_new(world: World) -> Told:
    """As PgBouncer 1.24 does, which knows prepared statements."""
    return changing(world, binaries.PGBOUNCERS[1])


@fault("older pooler changes the backend at each transaction", only_request(ANSWERED), never=NEVER, is_cold=True)
def changing_old(world: World) -> Told:
    """As PgBouncer 1.18 does, which knows none."""
    return changing(world, binaries.PGBOUNCERS[0])

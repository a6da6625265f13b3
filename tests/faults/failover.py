"""Faults of a pair of servers: a failover, and being led to the one that does not write."""

from __future__ import annotations

import shutil

from shared import db
from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import ANSWERED, REQUESTS, lost
from tests.faults.world import WARM, World
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres
from tests.shared.db.watching import name_of

REFUSED = "500 read_only_sql_transaction"


def standby_of(world: World) -> Postgres:
    """Run a standby that ends with the cell."""
    directory = world.postgres.server.data_dir.parent.with_name("fault-standby")
    world.stack.callback(shutil.rmtree, directory)
    return world.stack.enter_context(servers.standby(world.postgres, directory))


@fault("failover to a standby under way", lost("connection_failure"), server="own", is_cold=True)
def failover(world: World) -> Told:
    """The primary is gone with the statement on the way, and its standby is promoted while there is time."""
    world.stack.callback(world.postgres.server.start)
    standby = standby_of(world)
    # Only what the standby has, too, is acknowledged: otherwise a failover may lose it, whoever the client is.
    world.postgres.admin().execute(f'ALTER DATABASE "{name_of(world.database)}" SET synchronous_commit = on')
    both = world.url.replace("@127.0.0.1", f"@127.0.0.1:{standby.port},127.0.0.1")
    world.take(f"{both}?target_session_attrs=read-write")
    if world.is_request:
        assert world.run(WARM).is_answered
    end = world.caught()
    world.proxy.refuse()
    world.postgres.server.stop("immediate")
    standby.admin().execute("SELECT pg_promote()")
    world.postgres = standby
    world.proxy.resume()
    return end()


@fault(
    "session on the old primary after a failover",
    {
        **dict.fromkeys(REQUESTS, "answered"),
        **dict.fromkeys(("write", "COMMIT"), "answered, at another attempt"),
        "sign-in": REFUSED,
    },
    never=dict.fromkeys(("migration", "backup"), "a command makes connections of its own"),
    server="own",
    is_cold=True,
)
def demoted(world: World) -> Told:
    """The pool's connection leads to a server that only reads by now; new ones lead to the primary."""
    standby = standby_of(world)
    world.proxy.target = ("127.0.0.1", standby.port)
    assert db.fetch_value("SELECT pg_is_in_recovery()")
    world.proxy.target = ("127.0.0.1", world.postgres.port)
    return world.run()


@fault(
    "address leads to a standby",
    {**ANSWERED, **dict.fromkeys(("write", "COMMIT", "sign-in"), REFUSED), "migration": "exit 8"},
    server="own",
    is_cold=True,
)
def at_a_standby(world: World) -> Told:
    """The URL's only host is a server that does not write."""
    standby = standby_of(world)
    world.proxy.target = ("127.0.0.1", standby.port)
    try:
        return world.run()
    finally:
        world.proxy.target = ("127.0.0.1", world.postgres.port)

"""Faults of others who write at the same time: deadlocks, and transactions that cannot be put in an order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.world import WARM, World
from tests.shared.db.watching import name_of, until

ALONE = "a single statement, or none, that waits for nobody who waits for it"
AGAIN = "answered, at another attempt"
Rival = psycopg.Connection[tuple[object, ...]]


def setting(world: World, text: str) -> None:
    """Change a default of the database, for connections made from now on, and let commands wait for locks briefly."""
    world.variables["MIGRATION_LOCK_TIMEOUT"] = "0.5"
    world.postgres.admin().execute(f'ALTER DATABASE "{name_of(world.database)}" SET {text}'.encode())
    if world.is_request:
        assert world.run(WARM).is_answered


@contextmanager
def rival_of(world: World) -> Iterator[Rival]:
    """Connect somebody else, who does not look for deadlocks."""
    with psycopg.connect(world.postgres.admin_url(name_of(world.database))) as rival:
        rival.execute("SET deadlock_timeout = '1min'")
        rival.commit()
        yield rival


# Activity to: what the rival has locked, the bytes of the statement that will wait for it, and what the rival then
# waits for.
CROSSING = {
    "write": ("SELECT FROM account WHERE id = 2 FOR UPDATE", b"WHERE id = 2", "UPDATE account SET writes = writes"),
    "migration": (
        "SELECT FROM alembic_version FOR UPDATE",
        b"UPDATE alembic_version",
        "LOCK TABLE item IN ACCESS SHARE MODE",
    ),
    "backup": (
        "SELECT FROM account",  # it is the transaction that has counted the rows that keeps others waiting
        b"LOCK TABLE",
        "LOCK TABLE item IN ACCESS EXCLUSIVE MODE",
    ),
}


@fault(
    "deadlock",
    {"write": AGAIN, "migration": "answered", "backup": "exit 16"},
    never=dict.fromkeys(("read", "COMMIT", "sign-in", "health"), ALONE),
    is_cold=True,
)
def deadlock(world: World) -> Told:
    """The activity and somebody else wait for each other, and the server chooses the activity.

    It sees none where one of a backup's two sessions waits for the other, beyond its sight: there pg_dump gives up.
    """
    setting(world, "deadlock_timeout = '20ms'")
    held, then, crossing = CROSSING[world.activity.name]
    with rival_of(world) as rival:
        rival.execute(held.encode())
        end = world.caught(then)

        def cross() -> None:
            rival.execute(crossing.encode())
            rival.commit()

        thread = threading.Thread(target=cross)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: world.rows(waiting) == [(1,)])
        world.proxy.resume()
        told = end()
        thread.join()
        # A write's word tells of its other attempt.
        if world.activity.name == "migration":
            deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            until(lambda: world.rows(deadlocks) != [(0,)])  # a session reports it at its end
        if world.activity.name == "backup":
            assert "LOCK TABLE" in told.details, told
            assert "statement timeout" in told.details, told
        return told


@fault(
    "serialization failure",
    {"write": AGAIN, "COMMIT": AGAIN},
    never={
        **dict.fromkeys(("read", "sign-in", "health"), ALONE),
        "migration": "what it changes is locked",
        "backup": "it only reads",
    },
    is_cold=True,
)
def serialization(world: World) -> Told:
    """Somebody else has changed in the meantime what the transaction goes by."""
    setting(world, "default_transaction_isolation = serializable")
    with rival_of(world) as rival:
        if world.activity.name == "COMMIT":
            end = world.caught()
            rival.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            rival.execute("SELECT count(*) FROM ledger")
            rival.execute("INSERT INTO account VALUES (3, 0)")
        else:
            end = world.caught(b"WHERE id = 1")
            rival.execute("UPDATE account SET writes = writes WHERE id = 1")
        rival.commit()
        world.proxy.resume()
        try:
            return end()
        finally:
            rival.execute("DELETE FROM account WHERE id = 3")

"""Faults of time: each of the server's own timeouts, shorter than the request's deadline, and struck.

The activity's URL asks for them, so that they are those of requests: commands lift them for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg

from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import ANSWERED
from tests.faults.world import WARM, World
from tests.shared.db.watching import name_of, sessions, until

LIMIT = 300  # milliseconds
NO_LOCK = "it waits for no lock"
SINGLE = "a single statement is no transaction that idles"
COMMANDS = ("migration", "backup")
# What another session locks, so that the activity waits for it.
TABLES = {"read": "item", "write": "account", "sign-in": "users", "migration": "item", "backup": "item"}


def limited(world: World, setting: str) -> None:
    """Have the activity's sessions run with a limit, which its URL asks for."""
    world.take(f"{world.url}?options={quote(f'-c {setting}={LIMIT}')}")
    world.variables["MIGRATION_LOCK_TIMEOUT"] = "30"
    if world.is_request:
        assert world.run(WARM).is_answered


@contextmanager
def locked(world: World) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Have another session lock what the activity is to read or write, until it is closed."""
    with psycopg.connect(world.postgres.admin_url(name_of(world.database))) as rival:
        rival.execute(f"LOCK TABLE {TABLES[world.activity.name]} IN ACCESS EXCLUSIVE MODE".encode())
        yield rival


def outlast(world: World, state: str) -> None:
    """Wait until a session has been in a state for longer than the limit."""
    sql = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND {state}"
    until(lambda: world.rows(f"{sql} AND state_change < clock_timestamp() - interval '{LIMIT * 2} ms'") == [(True,)])


def waiting_for_a_lock(world: World) -> Told:
    """Have the activity wait for a lock: a request to its end, a command for longer than the limit."""
    with locked(world) as rival:
        end = world.begin()
        if not world.is_request:
            outlast(world, "wait_event_type = 'Lock'")
            rival.rollback()
        return end()


def caught_until(world: World, statement: bytes | None, gone: Callable[[], bool], state: str) -> Told:
    """Hold a statement on the way, of a request until its session has ended, of a command for longer than the limit."""
    end = world.caught(statement)
    if world.is_request:
        until(gone)
    else:
        outlast(world, state)
    world.proxy.resume()
    return end()


def never(reason: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


@fault(
    "statement_timeout",
    {**dict.fromkeys(("read", "write", "sign-in"), "504 statement_timeout"), **dict.fromkeys(COMMANDS, "answered")},
    never={"COMMIT": "the server limits no COMMIT", "health": NO_LOCK},
    is_cold=True,
    fast=("read",),
)
def statement(world: World) -> Told:
    """A statement waits for longer than it may."""
    limited(world, "statement_timeout")
    return waiting_for_a_lock(world)


@fault(
    "lock_timeout",
    {**dict.fromkeys(("read", "write", "sign-in"), "503 lock_timeout"), "migration": "answered", "backup": "exit 7"},
    never=never(NO_LOCK, "COMMIT", "health"),
    is_cold=True,
    fast=("read",),
)
def lock(world: World) -> Told:
    """Another session holds a lock for longer than is waited for it; to a command it is given then."""
    limited(world, "lock_timeout")
    world.variables["MIGRATION_LOCK_TIMEOUT"] = f"{LIMIT / 1000}"
    refused = world.proxy.on("server", b"C55P03")
    with locked(world) as rival:
        end = world.begin()
        if not world.is_request:
            refused.wait()
            rival.rollback()
        return end()


@fault(
    "idle_in_transaction_session_timeout",
    {
        **dict.fromkeys(("write", "COMMIT"), "answered, at another attempt"),
        **dict.fromkeys(COMMANDS, "answered"),
    },
    never=never(SINGLE, "read", "sign-in", "health"),
    is_cold=True,
    fast=("write",),
)
def idle_in_transaction(world: World) -> Told:
    """A transaction is idle for longer than it may be, as that of a process that was frozen."""
    limited(world, "idle_in_transaction_session_timeout")
    statement = b"UPDATE account" if world.activity.name == "write" else None
    return caught_until(
        world, statement, lambda: not sessions(world.postgres, world.database), "state LIKE 'idle in %'"
    )


@fault("idle_session_timeout between requests", ANSWERED, is_cold=True, fast=("read",))
def idle(world: World) -> Told:
    """The pool's connection was idle for longer than it may be; a command's are so at the side of its work."""
    limited(world, "idle_session_timeout")
    if world.is_request:
        until(lambda: not world.proxy.links)  # the end has arrived here too, where the pool sees it
    return world.run()


@fault(
    "idle_session_timeout with a statement on the way",
    {**dict.fromkeys(("read", "sign-in", "health"), "answered"), "write": "answered, at another attempt"},
    never={"COMMIT": "its session is in a transaction", **never("it lifts the limit", *COMMANDS)},
    is_cold=True,
)
def idle_too_long(world: World) -> Told:
    """The session ends by itself just when it is to be used."""
    limited(world, "idle_session_timeout")
    # A BEGIN that is there already would have begun the transaction.
    statement = b"BEGIN" if world.activity.name == "write" else None
    return caught_until(world, statement, lambda: not sessions(world.postgres, world.database), "")


@fault(
    "transaction_timeout",
    {
        **dict.fromkeys(("read", "write", "sign-in"), "503 transaction_timeout"),
        "COMMIT": "500 transaction_resolution_unknown",
        **dict.fromkeys(COMMANDS, "answered"),
    },
    never={"health": NO_LOCK},
    is_cold=True,
)
def transaction(world: World) -> Told:
    """A transaction takes longer than it may (PostgreSQL 17 and newer)."""
    limited(world, "transaction_timeout")
    if world.activity.name == "COMMIT":
        return caught_until(world, None, lambda: not sessions(world.postgres, world.database), "")
    return waiting_for_a_lock(world)

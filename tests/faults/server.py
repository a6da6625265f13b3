"""Faults of the server: restarted, crashed, and sessions that somebody ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from ops.postgres_server import StopMode
from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import ANSWERED, lost
from tests.faults.world import World
from tests.shared.db.watching import sessions, terminate, until


@contextmanager
def stopped(world: World, mode: StopMode) -> Iterator[None]:
    """Have no server for a block, and nobody who listens at its address."""
    world.proxy.refuse()
    world.postgres.server.stop(mode)
    try:
        yield
    finally:
        world.postgres.server.start()
        world.proxy.accept()


@fault("server restarted between requests", ANSWERED, server="own")
def restart_idle(world: World) -> Told:
    """Every connection of the pool has ended."""
    with stopped(world, "fast"):
        pass
    return world.run()


@fault("server restarted (fast) under way", lost("admin_shutdown"), server="own")
def restart_fast(world: World) -> Told:
    """The server is shut down with the statement on the way, and is back while there is time."""
    end = world.caught()
    with stopped(world, "fast"):
        world.proxy.resume()
    return end()


@fault("server restarted (immediate) under way", lost("connection_failure"), server="own")
def restart_immediate(world: World) -> Told:
    """The server ends without a checkpoint, and recovers from its log while there is time."""
    end = world.caught()
    with stopped(world, "immediate"):
        world.proxy.resume()
    return end()


@fault(
    "server stopped under way, back too late",
    {**lost("admin_shutdown"), "write": "503 connection_refused"},
    server="own",
)
def back_too_late(world: World) -> Told:
    """The server is shut down with the statement on the way, and is back after the deadline."""
    end = world.caught()
    with stopped(world, "fast"):
        world.proxy.resume()
        return end()


@fault("sibling backend crashes under way", lost("connection_failure"), server="own")
def crash(world: World) -> Told:
    """Another session's process is killed: the server ends all the others, and recovers."""
    end = world.caught()
    url = world.postgres.admin_url()
    with psycopg.connect(url, autocommit=True) as sibling, psycopg.connect(url, autocommit=True) as watcher:
        os.kill(sibling.info.backend_pid, signal.SIGKILL)
        until(lambda: not _answers(lambda: watcher))
    until(lambda: _answers(world.postgres.admin))
    world.proxy.resume()
    return end()


@fault("session terminated while idle", ANSWERED, fast=("read", "write"))
def terminated_idle(world: World) -> Told:
    """Somebody ends the session that waits in the pool."""
    terminate(world.postgres, *_pids(world))
    return world.run()


@fault("session terminated under way", lost("admin_shutdown"), fast=("read", "write", "COMMIT"))
def terminated(world: World) -> Told:
    """Somebody ends the session with the statement on the way."""
    end = world.caught()
    terminate(world.postgres, *_pids(world))
    world.proxy.resume()
    return end()


def _pids(world: World) -> list[int]:
    return [session.pid for session in sessions(world.postgres, world.database)]


def _answers(connect: Callable[[], psycopg.Connection[Any]]) -> bool:
    try:
        connect().execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True

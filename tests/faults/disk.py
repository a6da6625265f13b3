"""Faults of the disk: there is no room left, for the server's data, for its write-ahead log, for a backup."""

from __future__ import annotations

import psycopg
import pytest

from tests.faults.activities import Backup, Told
from tests.faults.fault import fault
from tests.faults.words import REQUESTS
from tests.faults.world import World
from tests.servers.binaries import Unavailable
from tests.servers.small_disk import fill, make_room, small_disk
from tests.shared.db.watching import until

SWITCHES = 50  # segments of the write-ahead log that may be there in advance
DESTINATION = 64 * 1024  # bytes for a backup


@fault(
    "the server's disk full",
    {
        **dict.fromkeys(("read", "health"), "answered"),
        **dict.fromkeys(("write", "sign-in"), "500 disk_full"),
        "migration": "exit 6",
        "backup": "exit 6",  # its snapshot is a file
    },
    never={"COMMIT": "what is written is refused before"},
    server="small",
    is_cold=True,
)
def full(world: World) -> Told:
    """No table can grow; what needs no room is done."""
    disk = world.postgres.server.data_dir.parent
    world.rows("CHECKPOINT")
    fill(disk)
    try:
        return world.run()
    finally:
        make_room(disk)


@fault(
    "no room for the write-ahead log",
    {
        **dict.fromkeys(REQUESTS, "503 connection_failure"),
        # What another attempt is told: the server's goodbye, and then that nobody listens.
        "write": "503 connection_failure | 503 connection_refused",
        "COMMIT": "500 transaction_resolution_unknown",
        "migration": "exit 6",
        "backup": "exit 16",
    },
    server="small",
)
def no_log(world: World) -> Told:
    """The server cannot write what it must, and ends until somebody has made room and starts it again."""
    server = world.postgres.server
    disk = server.data_dir.parent
    end = world.caught()
    fill(disk)
    try:
        _use_up_log(world)
        until(lambda: not server.running, 30)
        world.proxy.resume()
        return end()
    finally:
        make_room(disk)
        server.start(die_with_parent=True)


@fault(
    "a backup's destination full",
    {"backup": "exit 9"},
    never=dict.fromkeys((*REQUESTS, "migration"), "it keeps nothing on this machine"),
)
def destination_full(world: World) -> Told:
    """The disk on which the backup is made is full before it is whole."""
    assert isinstance(world.activity, Backup)
    try:
        disk = world.stack.enter_context(small_disk(world.folder, DESTINATION))
    except Unavailable as error:
        pytest.skip(str(error))
    fill(disk)
    try:
        return world.run()
    finally:
        make_room(disk)


def _use_up_log(world: World) -> None:
    for _ in range(SWITCHES):
        try:
            world.rows("SELECT pg_logical_emit_message(true, '', 'x'), pg_switch_wal()")
        except psycopg.OperationalError:
            return
    raise AssertionError("there is room")

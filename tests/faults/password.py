"""Faults of who logs in: the password was changed on the server."""

from __future__ import annotations

import os
from urllib.parse import quote

from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import REQUESTS
from tests.faults.world import World
from tests.servers.postgres import APP_PASSWORD
from tests.shared.db.watching import sessions, terminate

NEW = "another-secret"


def change(world: World) -> str:
    """Change the password, for the time of the cell, and give the URL with the new one."""
    alter = "ALTER ROLE app PASSWORD"
    admin = world.postgres.admin()
    world.stack.callback(lambda: admin.execute(f"{alter} '{APP_PASSWORD}'".encode()))
    admin.execute(f"{alter} '{NEW}'".encode())
    return world.url.replace(quote(APP_PASSWORD, safe=""), NEW)


def tell(world: World, url: str) -> None:
    """Put the URL where the activity reads it; a process that runs has to look by itself."""
    world.variables["DATABASE_URL"] = os.environ["DATABASE_URL"] = url


@fault(
    "password changed, the new one can be read",
    dict.fromkeys(REQUESTS, "answered"),
    never=dict.fromkeys(("migration", "backup"), "a command keeps the environment that it started with"),
    server="own",
)
def readable(world: World) -> Told:
    """The sessions have ended, and the environment has the new password."""
    tell(world, change(world))
    terminate(world.postgres, *(session.pid for session in sessions(world.postgres, world.database)))
    return world.run()


@fault(
    "password changed, the new one cannot be read",
    {**dict.fromkeys(REQUESTS, "503 invalid_password"), "migration": "exit 4", "backup": "exit 4"},
    server="own",
)
def unreadable(world: World) -> Told:
    """The sessions have ended, and the environment has the old password."""
    url = change(world)
    terminate(world.postgres, *(session.pid for session in sessions(world.postgres, world.database)))
    try:
        return world.run()
    finally:
        tell(world, url)


@fault(
    "password changed under way",
    {"migration": "exit 4", "backup": "answered"},
    never=dict.fromkeys(REQUESTS, "a session that is open stays"),
    server="own",
)
def under_way(world: World) -> Told:
    """A command has its connections, and would make another one."""
    end = world.caught()
    url = change(world)
    world.proxy.resume()
    try:
        return end()
    finally:
        tell(world, url)

"""Faults of names: the database's host has another address, none, one that is dead, or none of IPv4.

nss_wrapper answers for the system's resolver, to libpq and to Python alike, in processes of their own.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext

import pytest

from tests.faults.activities import Told
from tests.faults.fault import fault
from tests.faults.words import ANSWERED, REQUESTS, lost, no_connection
from tests.faults.world import World
from tests.servers import preloads
from tests.servers.binaries import Unavailable
from tests.servers.process import knocks, silent

NAME = "db.test"  # RFC 2606 gives nobody that
HERE, THERE, SIX = "127.0.0.1", "127.0.0.2", "::1"


class Names:
    """What the database's name leads to, for processes that a world starts from now on."""

    def __init__(self, world: World) -> None:
        try:
            # A copy, because LD_PRELOAD takes no path with a space, in which the checkout may lie.
            library = shutil.copy(preloads.library("libnss-wrapper"), world.folder.parent)
        except Unavailable as error:
            pytest.skip(str(error))
        self._file = world.folder.with_name("hosts")
        self._changes = 0
        world.take(world.url.replace(f"@{HERE}:", f"@{NAME}:"))
        world.variables |= {"LD_PRELOAD": str(library), "NSS_WRAPPER_HOSTS": str(self._file)}

    def lead_to(self, *addresses: str) -> None:
        """Have the name lead to these addresses, in this order."""
        self._file.write_text("".join(f"{address} {NAME}\n" for address in addresses))
        # nss_wrapper reads the file anew where it is younger by a second.
        self._changes += 1
        changed = self._file.stat().st_mtime + 10 * self._changes
        os.utime(self._file, (changed, changed))


@fault(
    "name that changes its address while idle",
    dict.fromkeys(REQUESTS, "answered"),
    never=dict.fromkeys(("migration", "backup"), "a command keeps no connection idle"),
)
def moved_idle(world: World) -> Told:
    """The server goes to another address between two requests, and its name follows."""
    names = Names(world)
    names.lead_to(HERE)
    world.in_instance()
    _move(world, THERE)
    names.lead_to(THERE)
    return world.run()


@fault("name that changes its address under way", lost("connection_failure"))
def moved_under_way(world: World) -> Told:
    """The server goes to another address with the statement on the way, and its name follows."""
    names = Names(world)
    names.lead_to(HERE)
    if world.is_request:
        world.in_instance()
    end = world.caught()
    names.lead_to(THERE)
    _move(world, THERE)
    return end()


@fault("name that does not resolve yet", no_connection("unknown_host"), is_cold=True)
def unknown(world: World) -> Told:
    """The database is new, and the name servers do not know it."""
    names = Names(world)
    names.lead_to()
    _begin(world)
    told = world.run()
    names.lead_to(HERE)
    return told


@fault("name with an IPv6 address only", ANSWERED, is_cold=True)
def six_only(world: World) -> Told:
    """The server listens at no address of IPv4, and its name leads to none."""
    try:
        _move(world, SIX)
    except OSError as error:
        pytest.skip(f"This machine has no IPv6: {error}")
    Names(world).lead_to(SIX)
    _begin(world)
    return world.run()


@fault("name whose first address refuses", ANSWERED, is_cold=True)
def first_refuses(world: World) -> Told:
    """Of two addresses the first is one where nobody listens."""
    Names(world).lead_to(THERE, HERE)
    return _past(world, nullcontext())


@fault("name whose first address is silent", ANSWERED, is_cold=True)
def first_silent(world: World) -> Told:
    """Of two addresses the first is one from which nothing comes back."""
    Names(world).lead_to(THERE, HERE)
    if not world.is_request:
        world.take(f"{world.url}?connect_timeout=2")  # which libpq gives each address
    return _past(world, silent(THERE, world.proxy.port))


def _begin(world: World) -> None:
    if world.is_request:
        world.in_instance(None)


def _past(world: World, first: AbstractContextManager[None]) -> Told:
    """Run the activity while the first address is as it is in a block, and see that it was tried."""
    try:
        tried = world.stack.enter_context(knocks(THERE, world.proxy.port))
    except Unavailable as error:
        pytest.skip(str(error))
    world.stack.enter_context(first)
    before = tried()  # by those who keep it silent
    _begin(world)
    told = world.run()
    assert tried() - before, "the first address was not tried"
    return told


def _move(world: World, address: str) -> None:
    world.proxy.refuse()
    world.proxy.cut("rst")
    world.proxy.host = address
    world.proxy.accept()

"""Every fault, in the order of the table."""

from __future__ import annotations

from tests.faults import (
    conflicts,
    disk,
    dns,
    failover,
    network,
    password,
    pooler,
    processes,
    room,
    server,
    signals,
    timeouts,
)
from tests.faults.fault import REGISTER, Fault

FAMILIES = (network, server, failover, room, pooler, timeouts, conflicts, password, processes, signals, disk, dns)
FAULTS: tuple[Fault, ...] = tuple(
    fault for family in FAMILIES for fault in REGISTER if fault.strike.__module__ == family.__name__
)

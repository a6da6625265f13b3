"""Every fault, in the order of the table."""

from __future__ import annotations

from tests.faults import network
from tests.faults.fault import REGISTER, Fault

__all__ = ["FAULTS", "network"]

FAULTS: tuple[Fault, ...] = tuple(REGISTER)

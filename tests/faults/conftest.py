"""Faults are tried with each driver, through the same fixtures as the tests of connections."""

from tests.shared.db.conftest import driver, use

__all__ = ["driver", "use"]

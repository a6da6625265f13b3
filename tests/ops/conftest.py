"""Fixtures of the command line's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.checkout import Checkout, entered_by_all


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a new folder, with a space in its path, that every user may enter."""
    with entered_by_all() as folder:
        yield folder


@pytest.fixture
def checkout(folder: Path) -> Iterator[Checkout]:
    """Return a copy of this checkout whose embedded server was never started."""
    checkout = Checkout(folder / "copy")
    yield checkout
    checkout.embedded.stop()

"""Imports without garbage collection, and garbage collection as it was afterwards."""

import gc
from collections.abc import Iterator

import pytest

from shared.imports import without_collection


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_nothing_is_collected_in_the_block() -> None:
    with without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_it_on() -> None:
    with pytest.raises(ImportError), without_collection():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()


def test_who_has_it_off_keeps_it_off() -> None:
    gc.disable()
    with without_collection():
        pass
    assert not gc.isenabled()

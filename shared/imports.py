"""Imports without the garbage collector, which would look again and again at what they make, and free none of it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Switch garbage collection off for the imports in this block; `make bench` shows what a cold start costs."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

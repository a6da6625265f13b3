"""The request's deadline: nested, bounded, inherited by a copied context."""

import contextvars
import threading

import pytest

from shared import deadline

LONG = 1000.0  # seconds: never reached, so that no assertion depends on the machine's speed


def test_there_is_none_at_first() -> None:
    assert deadline.remaining() is None
    assert deadline.bound(None) is None
    assert deadline.bound(3.0) == 3.0


def test_what_remains_is_never_more_than_was_given() -> None:
    with deadline.within(LONG):
        left = deadline.remaining()
        assert left is not None
        assert 0 < left <= LONG
        assert deadline.bound(3.0) == 3.0
        assert deadline.bound(2 * LONG) == pytest.approx(left, abs=LONG / 2)
        assert deadline.bound(None) == pytest.approx(left, abs=LONG / 2)
    assert deadline.remaining() is None


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_what_is_over_is_zero(seconds: float) -> None:
    with deadline.within(seconds):
        assert deadline.remaining() == 0.0
        assert deadline.bound(3.0) == 0.0
        assert deadline.bound(None) == 0.0


def test_an_inner_deadline_shortens_and_never_lengthens() -> None:
    with deadline.within(LONG):
        with deadline.within(LONG / 10):
            left = deadline.remaining()
            assert left is not None
            assert left <= LONG / 10
        with deadline.within(10 * LONG):
            left = deadline.remaining()
            assert left is not None
            assert left <= LONG
        left = deadline.remaining()
        assert left is not None
        assert left > LONG / 10


def test_a_fresh_deadline_begins_anew() -> None:
    with deadline.within(0):
        with deadline.fresh(LONG):
            left = deadline.remaining()
            assert left is not None
            assert left > LONG / 2
        assert deadline.remaining() == 0.0


def test_it_ends_with_the_block_that_raises() -> None:
    for block in (deadline.within, deadline.fresh):
        with pytest.raises(RuntimeError), block(LONG):
            raise RuntimeError
        assert deadline.remaining() is None


def test_a_thread_has_it_by_a_copied_context_only() -> None:
    seen: list[float | None] = []

    def look() -> None:
        seen.append(deadline.remaining())

    with deadline.within(LONG):
        copied = contextvars.copy_context()
        for target in (look, lambda: copied.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    assert seen[0] is None
    assert seen[1] is not None

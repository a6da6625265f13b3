"""Plain functions in threads: handed over, waited for in bounds, and their outcome brought back."""

import asyncio
import contextlib
import contextvars
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared import deadline
from shared.errors import Overloaded
from shared.web import Endpoint, endpoint
from shared.web.threads import Threads
from tests.shared.web.conftest import Serve

WAIT = 20.0  # seconds; never reached where all is well


@pytest.fixture
def one() -> Threads:
    return Threads("test", 1, WAIT)


def run(threads: Threads, function: Callable[[], Any]) -> Any:
    return asyncio.run(threads.run(function))


class Blocking:
    """A function that has begun, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.end.wait(WAIT)
        return "done"

    async def running_in(self, threads: Threads) -> "asyncio.Task[Any]":
        task = asyncio.create_task(threads.run(self))
        assert await asyncio.to_thread(self.begun.wait, WAIT)
        return task


def test_it_gives_what_the_function_returns_in_the_caller_s_context(one: Threads) -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")

    assert run(one, lambda: (variable.get(), threading.current_thread())) == ("the caller's", any_other_thread())


class any_other_thread:  # noqa: N801 - reads as a value
    def __eq__(self, other: object) -> bool:
        return isinstance(other, threading.Thread) and other is not threading.current_thread()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_it_raises_what_the_function_raises(one: Threads, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("no")

    async def ask() -> None:
        with pytest.raises(kind, match="no"):
            await one.run(fail)

    asyncio.run(ask())
    assert run(one, lambda: 1) == 1, "its thread goes on"


def test_an_iterator_s_end_is_an_error_and_no_hang(one: Threads) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(one, lambda: next(iter([])))


def test_a_thread_takes_the_next_call_itself_and_ends_when_none_comes(
    one: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.web.threads._LINGER", WAIT)
    first, *others = (run(one, threading.current_thread) for _ in range(5))
    assert others == [first] * 4

    monkeypatch.setattr("shared.web.threads._LINGER", 0.001)
    run(one, lambda: None)
    first.join(WAIT)
    assert not first.is_alive()
    assert run(one, threading.current_thread) is not first


def test_a_call_for_which_no_thread_can_be_started_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads("test", 2, WAIT)

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> None:
        blocking = Blocking()
        first = await blocking.running_in(threads)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            second = asyncio.create_task(threads.run(lambda: "second"))
            await asyncio.sleep(0)
        blocking.end.set()
        assert [await first, await second] == ["done", "second"]

    asyncio.run(ask())


def test_a_call_for_which_no_thread_can_be_started_at_all_is_not_run_later(
    one: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="new thread"):
            run(one, lambda: pytest.fail("it was refused"))
    assert run(one, lambda: 1) == 1


def test_calls_wait_for_a_thread_in_turn(one: Threads) -> None:
    order: list[int] = []

    async def ask() -> None:
        blocking = Blocking()
        first = await blocking.running_in(one)
        others = [asyncio.create_task(one.run(partial(order.append, n))) for n in range(3)]
        await asyncio.sleep(0)
        blocking.end.set()
        await asyncio.gather(first, *others)

    asyncio.run(ask())
    assert order == [0, 1, 2]


@pytest.mark.parametrize("limit", ["its own", "the deadline's"])
def test_a_call_that_finds_no_thread_in_time_is_told_so(limit: str) -> None:
    threads = Threads("test", 1, 0.01 if limit == "its own" else WAIT)

    async def ask() -> None:
        blocking = Blocking()
        first = await blocking.running_in(threads)
        with deadline.within(WAIT if limit == "its own" else 0.01), pytest.raises(Overloaded, match="All 1 threads"):
            await threads.run(lambda: pytest.fail("it must not run later"))
        blocking.end.set()
        assert await first == "done"
        assert await threads.run(lambda: 1) == 1

    asyncio.run(ask())


def test_who_no_longer_waits_is_not_served(one: Threads) -> None:
    async def ask() -> None:
        blocking = Blocking()
        first = await blocking.running_in(one)
        task = asyncio.create_task(one.run(lambda: pytest.fail("nobody waits for it")))
        await asyncio.sleep(0)
        task.cancel()
        blocking.end.set()
        assert await first == "done"
        assert await one.run(lambda: 1) == 1

    asyncio.run(ask())


def test_a_function_may_outlive_its_event_loop(one: Threads) -> None:
    blocking = Blocking()

    async def leave() -> None:
        (await blocking.running_in(one)).cancel()

    asyncio.run(leave())
    blocking.end.set()
    assert run(one, lambda: 1) == 1


def test_an_endpoint_without_a_thread_says_when_to_come_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads("test", 1, 0.01)
    monkeypatch.setattr(endpoint, "_threads", threads)
    busy = Endpoint("/api/x")
    busy.get(lambda: "answered")
    blocking = Blocking()
    occupied = threading.Thread(target=lambda: run(threads, blocking))
    occupied.start()
    assert blocking.begun.wait(WAIT)

    response = serve(busy).get("/api/x")

    blocking.end.set()
    occupied.join()
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "The service is busy. Try again shortly."
    assert serve(busy).get("/api/x").json() == "answered"


def test_the_limits_are_those_of_the_docs() -> None:
    text = " ".join((Path(__file__).parents[3] / "docs" / "PRODUCTION.md").read_text("utf-8").split())
    limits = f"{endpoint._THREADS} of them run at once in a process. A request that finds no thread within"
    assert f"{limits} {endpoint._PATIENCE:g} s is answered 503" in text


def test_a_forked_child_has_threads_of_its_own(one: Threads) -> None:
    assert run(one, os.getpid) == os.getpid()  # so that a thread lingers
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            asyncio.run(asyncio.wait_for(one.run(os.getpid), WAIT))
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

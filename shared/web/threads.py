"""Threads in which an event loop has plain functions run.

A pool of the standard library costs more for each call than a read from the database. Here a thread that has answered
a call lingers for a moment, takes the next one itself, and ends where none comes. A call that finds all threads busy
waits for one, but not for long: an answer that says so soon is worth more than one that comes when nobody waits for it
any more.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from shared import deadline
from shared.errors import Overloaded

log = logging.getLogger(__name__)
_LINGER = 0.1  # seconds


class _Call:
    """A function that somebody awaits, with the context of who called, and what became of it."""

    __slots__ = ("_context", "_function", "_loop", "error", "future", "result")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._loop = loop
        self._context = contextvars.copy_context()

    def run(self) -> None:
        """Call the function here, and wake who awaits it."""
        if self.future.cancelled():
            return
        try:
            self.result = self._context.run(self._function)
        except BaseException as error:
            self.error = error
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody awaits it any more
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Wake who awaits it."""
        if not self.future.done():
            self.future.set_result(None)


_all: "weakref.WeakSet[Threads]" = weakref.WeakSet()


class Threads:
    """Run functions in `most` threads at once. A call waits for a free one for `patience` seconds at most."""

    def __init__(self, name: str, most: int, patience: float) -> None:
        self._name = name
        self._most = most
        self._patience = patience
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._numbers = count()
        self._lock = threading.Lock()
        self._given: SimpleQueue[_Call] = SimpleQueue()  # calls for which a thread lingers
        self._waiting: deque[_Call] = deque()  # calls for which there is none
        self._lingering = 0  # threads for which no call was given yet
        self._threads = 0

    async def run(self, function: Callable[[], Any]) -> Any:
        """Give what the function returns or raises. Raises Overloaded where no thread is free in time."""
        loop = asyncio.get_running_loop()
        call = _Call(function, loop)
        if self._start(call):
            await call.future
        else:
            timer = loop.call_later(deadline.bound(self._patience) or 0.0, self._give_up, call)
            try:
                await call.future
            finally:
                timer.cancel()
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # its error holds this frame, and this frame it
        return call.result

    def _start(self, call: _Call) -> bool:
        """Give the call to a thread; False where it waits for one."""
        with self._lock:
            if self._lingering:
                self._lingering -= 1
                self._given.put(call)
            elif self._threads >= self._most or not self._start_thread(call):
                self._waiting.append(call)
                return False
        return True

    def _start_thread(self, call: _Call) -> bool:
        """Start a thread for the call; False where the system has none to give, and others will take it."""
        try:
            threading.Thread(target=self._work, args=(call,), name=f"{self._name}_{next(self._numbers)}").start()
        except RuntimeError:
            if not self._threads:
                raise
            return False
        self._threads += 1
        return True

    def _work(self, call: _Call | None) -> None:
        while call is not None:
            call.run()
            call = self._next()

    def _next(self) -> _Call | None:
        """Give the call that this thread has to run next, None where there is none for a while."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._lingering += 1
        try:
            return self._given.get(timeout=_LINGER)
        except Empty:
            with self._lock:
                if self._lingering:
                    self._lingering -= 1
                    self._threads -= 1
                    return None
            return self._given.get()  # given just now

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            try:
                self._waiting.remove(call)
            except ValueError:  # a thread has taken it
                return
        call.error = Overloaded(
            f"All {self._most} threads of this process stayed busy for {self._patience:g} s.",
            solutions=[
                "Look for what keeps them busy: slow statements, or a wait for a connection or for another service.",
                "Run more instances, or more workers.",
            ],
        )
        call.wake()


def _after_fork() -> None:
    # The threads are the parent's, and a call given to one of them would never be answered.
    for threads in _all:
        threads._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

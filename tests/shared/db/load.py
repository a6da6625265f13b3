"""Requests that go on and on while a test changes something beneath them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shared import db, deadline
from tests.shared.db.watching import until


class Load:
    """Threads that send requests until told to stop: half over the pool, half each over a connection of its own."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.users: set[str] = set()
        self._done = {"pooled": 0, "fresh": 0}
        self._stop = threading.Event()
        work = [("pooled", self._pooled), ("fresh", self._fresh)] * 2
        self._threads = [threading.Thread(target=self._run, args=one) for one in work]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more("fresh")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, kind: str, number: int = 10) -> None:
        """Wait until as many more requests of a kind are done."""
        wanted = self._done[kind] + number
        until(lambda: self._done[kind] >= wanted or self.failures)

    def _run(self, kind: str, request: Callable[[], str]) -> None:
        while not self._stop.wait(0.005):  # enough of them, and room for others on this machine
            try:
                with deadline.within(10):
                    self.users.add(request())
            except Exception as error:
                self.failures.append(error)
            self._done[kind] += 1

    def _pooled(self) -> str:
        return str(db.fetch_value("SELECT current_user::text"))

    def _fresh(self) -> str:
        connection = db.open_connection()
        try:
            return str(connection.fetch("SELECT current_user::text AS name")[0]["name"])
        finally:
            connection.close()

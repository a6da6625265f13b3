"""A TCP proxy between a client and a server that counts flights and makes faults, while it runs.

A *flight* is a round trip as latency sees it: the client sends, then waits for an answer. The proxy does not
understand what it carries, so TLS is counted like plain text. It counts when an answer reaches the client after bytes
of the client: what is never answered (Terminate, at the end of a connection) is no flight, and what the server says
unasked is none either. A client that writes several times before it waits makes one flight: what a server answers in
between (to a long pipeline; session tickets in a TLS handshake) is held back until the client has been silent for
`settle` seconds. Where each flight is one write, as in all statements outside pipelines, 0 is as good, and faster.

    with WireProxy("127.0.0.1", 5432) as proxy:
        with psycopg.connect(proxy.url(url), sslmode="disable", autocommit=True) as connection:
            with proxy.count() as count:
                connection.execute("SELECT 1")
            assert count.flights == 1
            proxy.on("client", b"COMMIT", do="rst", when="answer")  # committed, and the client will never know
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from tests.servers.process import free_port, through
from tests.servers.proxy_link import Count, Cut, Do, Link, Side, Trap, When

T = TypeVar("T")


class WireProxy:
    """Listen on 127.0.0.1 and carry each connection to `target`.

    These may be changed while it runs: `target` (where new connections go), `delay` (seconds, each way),
    `byte_by_byte`, `settle` (seconds), `largest` (bytes of the largest piece that was delivered since it was set).
    `total` counts since the start; `links` are the open connections, oldest first, each with a `count` of its own.
    """

    def __init__(self, host: str, port: int, *, settle: float = 0.005) -> None:
        self.target = (host, port)
        self.host = "127.0.0.1"
        self.port = free_port()
        self.delay = 0.0
        self.settle = settle
        self.byte_by_byte = False
        self.largest = 0
        self.total = Count()
        self.links: list[Link] = []
        self.traps: list[Trap] = []
        self.silent = False
        self.loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self._thread = threading.Thread(target=self.loop.run_forever, name="wire-proxy", daemon=True)
        self._thread.start()
        self.accept()

    def __enter__(self) -> WireProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def url(self, url: str) -> str:
        """Return a database URL with our host and port in place of its own."""
        return through(url, self.port)

    def close(self) -> None:
        """Cut all connections and stop listening."""
        if self.loop.is_closed():
            return
        self.refuse()
        self.cut("rst")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @contextmanager
    def count(self) -> Iterator[Count]:
        """Count what passes in the block; the figures are there when it ends."""
        before, passed = replace(self.total), Count()
        yield passed
        for name, value in vars(self.total).items():
            setattr(passed, name, value - getattr(before, name))

    # -- new connections ---------------------------------------------------------------------------

    def accept(self) -> None:
        """Carry new connections: how a proxy begins, and the end of `refuse` and `silence`."""
        self.silent = False
        if self._listener is None:
            listening = self.loop.create_server(lambda: Link(self).client, self.host, self.port, backlog=1024)
            self._listener = self._run(listening)

    def refuse(self) -> None:
        """Refuse new connections, as a stopped server does (ECONNREFUSED)."""
        if self._listener is not None:
            self._run(_turns())  # so that who has connected until now is accepted
            self._call(self._listener.close)
            self._listener = None

    def silence(self) -> None:
        """Accept new connections, take what they send and never answer."""
        self.accept()
        self._run(_turns())
        self.silent = True

    # -- open connections --------------------------------------------------------------------------

    def cut(self, how: Cut = "fin", side: Side | Literal["both"] = "both") -> None:
        """End the open connections, towards one side or both. With FIN what is on the way arrives, with RST not."""
        self._each(lambda link: link.cut(how, side))
        self._run(_turns())

    def black_hole(self) -> None:
        """Let all bytes of the open connections vanish from now on, for ever. For new ones there is `silence`."""
        self._each(lambda link: link.do("black hole"))

    def pause(self) -> None:
        """Stop carrying bytes of the open connections; nothing is lost."""
        self._each(lambda link: link.do("pause"))

    def resume(self) -> None:
        """Go on after `pause`, or after a trap that did it."""
        self._each(lambda link: link.resume())

    def on(
        self, source: Side, match: bytes | int, do: Do = "nothing", when: When = "before", *, carried: int = 0
    ) -> Trap:
        """At the first `match` from `source`, on any connection, do something to that connection; once.

        `match` is a sequence of bytes (of plain text), or a number: so many bytes more, counted over all connections,
        are carried, and it springs at the next one. For bytes, `when` is "before" they are carried, "after", or at
        the "answer" to them, of which only the first `carried` bytes are: then the server has done what it was asked
        for. A black hole acknowledges what it swallows, as a middlebox does; "unplug" does not, as a dead network.
        """
        trap = Trap(source, match, do, when, carried)
        self._call(lambda: self.traps.append(trap))
        return trap

    # -- between the caller's thread and the loop's ------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())

    def _each(self, function: Callable[[Link], None]) -> None:
        def call() -> None:
            for link in list(self.links):
                function(link)

        self._call(call)


async def _turns() -> None:
    """Let the loop turn until what it has begun is done: accepting a connection and closing one take several turns."""
    for _ in range(5):
        await asyncio.sleep(0)

"""The inside of the wire proxy: one connection through it, its two ends, and what may be done to it.

All of it lives in the thread of the proxy's event loop, except Count and Trap.wait, which any thread may read.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from tests.servers.tls_records import ClientRecords

if TYPE_CHECKING:
    from tests.servers.proxy import WireProxy

Side = Literal["client", "server"]
Cut = Literal["fin", "rst"]
Do = Literal["nothing", "fin", "rst", "black hole", "unplug", "pause"]
When = Literal["before", "after", "answer"]

QUEUE_LIMIT = 256 * 1024  # bytes on the way in one direction, beyond which their sender is no longer read
WAIT = 10.0  # seconds until a trap that does not spring is an error
WILL_SPEAK = 1.0  # seconds to wait for a client that is known not to be waiting itself
TAIL = 64  # bytes remembered, for a match that two chunks share
SO_ATTACH_FILTER = 26  # Linux; Python does not name it


@dataclass
class Count:
    """What passed: flights, accepted connections, bytes from each side."""

    flights: int = 0
    connections: int = 0
    bytes_from_client: int = 0
    bytes_from_server: int = 0


class Trap:
    """Something to do at certain bytes; made by `WireProxy.on`."""

    def __init__(self, source: Side, match: bytes | int, do: Do, when: When, carried: int = 0) -> None:
        self.source: Side = source
        self.match = match
        self.do: Do = do
        self.when: When = when
        self.carried = carried
        self.event = threading.Event()

    def wait(self, timeout: float = WAIT) -> None:
        """Wait until it has sprung. Raises TimeoutError."""
        if not self.event.wait(timeout):
            raise TimeoutError(f"the proxy saw no {self.match!r} from the {self.source} within {timeout} s")

    def find(self, tail: bytes, data: bytes) -> int | None:
        """Return how much of `data` is carried before the trap springs; None when it does not. `tail` came before."""
        if isinstance(self.match, int):
            carried = self.match
            self.match = carried - len(data)
            return carried if carried <= len(data) else None
        begin = max(0, len(tail) - len(self.match) + 1)
        if (tail + data).find(self.match, begin) < 0:
            return None
        return 0 if self.when == "before" else len(data)


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: WireProxy) -> None:
        self.proxy = proxy
        self.count = Count(connections=1)
        self.client = End(self, "client")
        self.server = End(self, "server")
        self.client.other, self.server.other = self.server, self.client
        self.traps: list[Trap] = []
        self.paused = False
        self.black = proxy.silent
        self._asked = False
        self._client_spoke = 0.0
        self._records = ClientRecords()
        self._dialling: asyncio.Task[None] | None = None

    def opened(self) -> None:
        """Take a new client, and dial the server for it."""
        self.proxy.links.append(self)
        self.proxy.total.connections += 1
        if not self.black:
            self._dialling = self.proxy.loop.create_task(self._dial())

    async def _dial(self) -> None:
        try:
            await self.proxy.loop.create_connection(lambda: self.server, *self.proxy.target)
        except OSError:
            self.cut("rst", "both")
        else:
            self.server.pump()

    def received(self, source: End, data: bytes) -> None:
        """Take bytes from one end, look what the traps say, and send them to the other."""
        self._add(f"bytes_from_{source.side}", len(data))
        if self.black:
            return
        if source is self.client:
            self._asked = True
            self._client_spoke = self.proxy.loop.time()
            self._records.feed(data)
            self.client.pump()  # what is held back for it has a new time
        tail, source.tail = source.tail, (source.tail + data)[-TAIL:]
        for traps in (self.traps, self.proxy.traps):
            for trap in [trap for trap in traps if trap.source == source.side]:
                if (carried := trap.find(tail, data)) is None:
                    continue
                traps.remove(trap)
                source.send(data[:carried])
                data = data[carried:]
                self._spring(trap, source)
                if self.black or source.closed:
                    return
        source.send(data)

    def _spring(self, trap: Trap, source: End) -> None:
        if trap.when == "answer" and not isinstance(trap.match, int):
            answer = Trap(source.other.side, trap.carried, trap.do, "before")
            answer.event = trap.event
            self.traps.append(answer)
            return
        if trap.do == "rst":
            source.other.flush()
        self.do(trap.do)
        trap.event.set()

    def do(self, what: Do) -> None:
        if what == "fin" or what == "rst":
            self.cut(what, "both")
        elif what == "black hole":
            self.black = True
        elif what == "unplug":
            self.black = True
            self.client.unplug()
            self.server.unplug()
        elif what == "pause":
            self.paused = True
            self.client.adjust_reading()
            self.server.adjust_reading()

    def resume(self) -> None:
        self.paused = False
        self.client.pump()
        self.server.pump()

    def cut(self, how: Cut, side: Side | Literal["both"]) -> None:
        for end in (self.client, self.server):
            if side in (end.side, "both"):
                end.cut(how)

    def delivering(self, end: End, data: bytes) -> None:
        """Count a flight when an answer is about to reach the client."""
        self.proxy.largest = max(self.proxy.largest, len(data))
        if end is self.client and self._asked:
            self._asked = False
            self._add("flights", 1)

    def due(self, end: End, received: float) -> float:
        """Return when bytes that came at `received` may go to `end` (time of the loop)."""
        due = received + self.proxy.delay
        if end is not self.client:
            return due
        silence = WILL_SPEAK if self._records.will_speak else self.proxy.settle
        return max(due, self._client_spoke + silence)

    def lost(self, end: End) -> None:
        """Forget the link when both ends are gone; one without a server has only one."""
        if end is self.client and self._dialling is not None:
            self._dialling.cancel()
        if end.other.gone:
            self.proxy.links.remove(self)

    def _add(self, name: str, number: int) -> None:
        for count in (self.count, self.proxy.total):
            setattr(count, name, getattr(count, name) + number)


class End(asyncio.Protocol):
    """One end of a link: a connection, and the bytes that are on the way to it."""

    other: End

    def __init__(self, link: Link, side: Side) -> None:
        self.link = link
        self.side: Side = side
        self.tail = b""
        self._transport: asyncio.Transport | None = None
        self._queue: deque[tuple[float, bytes]] = deque()  # when received, and what; nothing means the end
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writable = True
        self._lost = False

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def gone(self) -> bool:
        return self._transport is None or self._lost

    # -- from the other end to this one ------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Put bytes that came from this end on their way to the other."""
        if data:
            self.other.put(data)

    def put(self, data: bytes) -> None:
        self._queue.append((self.link.proxy.loop.time(), data))
        self._queued += len(data)
        self.pump()

    def pump(self) -> None:
        """Deliver what is due, and come back for the rest."""
        loop = self.link.proxy.loop
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._writable and not self.link.paused and not self.closed:
            received, data = self._queue[0]
            if (due := self.link.due(self, received)) > loop.time():
                self._timer = loop.call_at(due, self.pump)
                break
            self._queue.popleft()
            self._queued -= len(data)
            if self.link.proxy.byte_by_byte and len(data) > 1:
                self._queue.appendleft((received, data[1:]))
                self._queued += len(data) - 1
                self._deliver(data[:1])
                self._timer = loop.call_later(0, self.pump)
                break
            self._deliver(data)
        self.other.adjust_reading()
        self.adjust_reading()

    def flush(self) -> None:
        """Deliver at once what is on the way and not held by a pause."""
        while self._queue and not self.closed and not self.link.paused:
            self._deliver(self._queue.popleft()[1])

    def _deliver(self, data: bytes) -> None:
        assert self._transport is not None
        if data:
            self.link.delivering(self, data)
            self._transport.write(data)
        else:
            self._transport.close()

    def adjust_reading(self) -> None:
        """Read from this end while there is room on the way to the other: a slow reader is felt by its writer."""
        if self._transport is None or self.closed:
            return
        room = self.other._queued < QUEUE_LIMIT and self.other._writable
        if self.link.black or (room and not self.link.paused and self.other._transport is not None):
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def cut(self, how: Cut) -> None:
        """End the connection of this end."""
        if self._transport is None or self._lost:
            return
        if how == "fin":
            self.flush()
            self._transport.close()
        else:
            linger = struct.pack("ii", 1, 0)  # close() then sends RST
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    def unplug(self) -> None:
        """Have the kernel drop every packet that comes to this end: none is acknowledged (Linux; socket(7))."""
        assert self._transport is not None
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: keep 0 bytes
        program = struct.pack("HL", 1, ctypes.addressof(drop))
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.side == "client":
            self.link.opened()
            self.adjust_reading()
        elif self.other.closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.link.received(self, data)

    def eof_received(self) -> None:
        if not self.link.black:
            self.other.put(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if exc is not None and not self.link.black:
            self.other.cut("rst")
        if self._timer is not None:
            self._timer.cancel()
        self.link.lost(self)

    def pause_writing(self) -> None:
        self._writable = False
        self.other.adjust_reading()

    def resume_writing(self) -> None:
        self._writable = True
        self.pump()

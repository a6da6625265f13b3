"""One HTTP connection that is kept, as cheap for the processor as can be: two cores serve all of a storm."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

PATIENCE = 40.0  # seconds for an answer, beyond any deadline of a request
_KEPT = 4.0  # seconds after a request in which its connection takes another; the instance closes it after 5
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class Reply(NamedTuple):
    """An HTTP response; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A connection to a port of 127.0.0.1, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked = 0.0

    async def ask(self, method: str, path: str, headers: str = "", body: bytes = b"") -> Reply:
        """Send a request and wait for its answer. Raises OSError, EOFError or TimeoutError where there is none."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(method, path, headers, body)
        except BaseException:
            self.close()
            raise

    async def _ask(self, method: str, path: str, headers: str, body: bytes) -> Reply:
        if time.monotonic() - self._asked > _KEPT:
            self.close()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len(body)}\r\n\r\n"
        self._asked = time.monotonic()
        self._writer.write(head.encode() + body)
        if _QUICKACK is not None:
            # The runtime sends head and body apart and does not switch Nagle's algorithm off: the body would wait for
            # our acknowledgement of the head, which Linux delays by 40 ms.
            self._writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        names = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        content = await self._reader.readexactly(int(names.get("content-length", 0)))
        if names.get("connection") == "close":
            self.close()
        return Reply(int(lines[0].split(" ", 2)[1]), names, content)

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

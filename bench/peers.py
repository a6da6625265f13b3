"""The clients that are compared: a process for each, told what to do by lines, and the way to the database."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench import node
from tests.deploy import tools
from tests.servers.proxy import WireProxy
from tests.servers.proxy_link import End, Link

OURS = "this pool, psycopg"
DRIZZLE = "Drizzle on postgres-js"
FLOOR = "the floor: raw protocol"

# Would change what a client does, or how fast: Node starts and connects more slowly with NODE_EXTRA_CA_CERTS.
_CLEARED = ("DATABASE_", "POSTGRES_", "PG", "NODE_", "VERCEL", "AWS_", "APP_ENV")


class Kind(NamedTuple):
    """A client: its name in bench/clients.py or client.mjs, and what its URL has beyond the others'."""

    key: str
    parameters: str = ""

    @property
    def is_node(self) -> bool:
        """Tell whether Node runs it."""
        return self.key in ("drizzle", "postgres-js")


class Peer:
    """The process of a client. Each method is a command of bench/clients.py, where they are explained."""

    def __init__(self, kind: Kind, command: Sequence[str], begin: Callable[[], None] | None) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
        self.kind = kind
        self._process = subprocess.Popen(
            command,
            cwd=tools.ROOT,
            env={**environ, "APP_ENV": "production", "DATABASE_POOL_MAX": "10"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=begin,
        )

    def open(self, url: str, sessions: int = 1) -> None:
        """Prepare; open no connection."""
        self._ask("open", url + self.kind.parameters, sessions)

    def first(self) -> float:
        """Give the ms from before the connect to the first row in hand."""
        return float(self._ask("first"))

    def end(self) -> None:
        """End what the first read began."""
        self._ask("end")

    def warm(self, reads: int) -> float:
        """Give the median ms of a read."""
        return float(self._ask("warm", reads))

    def load(self, reads: int) -> tuple[float, float]:
        """Give the microseconds of CPU and the seconds by the clock of so many reads in each session at once."""
        cpu, clock = self._ask("load", reads)
        return cpu, clock

    def close(self) -> None:
        """Close the connections."""
        self._ask("close")

    def quit(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, *words: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the client {self.kind.key} ended at {words[0]!r}; what it says is above")
        return json.loads(answer)


@contextmanager
def running(
    kinds: Mapping[str, Kind], folder: Path, *, begin: Callable[[], None] | None = None
) -> Iterator[dict[str, Peer]]:
    """Start the clients, each of which calls `begin` first.

    Raises tools.Missing where this machine lacks what runs or bundles those of Node.
    """
    in_python = [sys.executable, "-m", "bench.clients"]
    in_node = [str(tools.node()), str(node.bundle("client.mjs", folder, module=True))]
    with ExitStack() as stack:
        peers = {}
        for name, kind in kinds.items():
            peers[name] = Peer(kind, [*(in_node if kind.is_node else in_python), kind.key], begin)
            stack.callback(peers[name].quit)
        yield peers


class Distance(WireProxy):
    """The wire proxy, where a TCP connection too takes its round trip to open.

    The kernel accepts at once, so the proxy lets the first bytes of a client wait for as long.
    """

    def accept(self) -> None:
        """Carry new connections."""
        self._listener = self._run(self.loop.create_server(lambda: _Far(self).client, self.host, self.port))


class _Far(Link):
    def opened(self) -> None:
        self._opened = self.proxy.loop.time()
        super().opened()

    def due(self, end: End, received: float) -> float:
        if end is self.server:
            received = max(received, self._opened + 2 * self.proxy.delay)
        return super().due(end, received)


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Give the median of the ratios of each turn: the machine's speed drifts, and hits both of a turn alike."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def met(is_met: bool) -> str:
    """Say whether a goal is met."""
    return "yes" if is_met else "**no**"

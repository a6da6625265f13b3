"""Connect, first row and warm read at three distances from the database, with TLS and without, beside the peers.

    python -m bench.connect

A *flight* is a round trip: the client sends, then waits. Flights are counted on the wire, where they are always the
same; times are medians of interleaved turns. The first row's time begins before the connect, with everything imported
that the client needs, and ends with the row in hand.
"""

import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.peers import DRIZZLE, FLOOR, OURS, Distance, Kind, Peer, met, ratio, running
from bench.reads import fill
from tests import results
from tests.deploy import tools
from tests.servers import binaries, tls
from tests.servers.proxy import WireProxy

TURNS = 11
ROUND_TRIPS = (0, 2, 10)  # ms
FAR = ROUND_TRIPS[-1]
WARM_READS = 5  # in each turn
SETTLED = 20  # reads after which a client has prepared what it prepares, and as many to count
MODES = {"disable": "without TLS", "require": "with TLS"}

LATER = f"{OURS}, a later connection"
DIRECT = f"{OURS}, sslnegotiation=direct in the URL"
PEERS = {
    OURS: Kind("ours"),
    LATER: Kind("ours-later"),
    DIRECT: Kind("ours", "&sslnegotiation=direct"),
    "this pool, pg8000": Kind("ours-pg8000"),
    "raw psycopg, autocommit": Kind("psycopg"),
    "raw psycopg, default transaction": Kind("psycopg-transaction"),
    "psycopg_pool": Kind("psycopg-pool"),
    "psycopg_pool with check": Kind("psycopg-pool-check"),
    "SQLAlchemy, QueuePool": Kind("sqlalchemy"),
    "SQLAlchemy, NullPool": Kind("sqlalchemy-nullpool"),
    "postgres-js": Kind("postgres-js"),
    DRIZZLE: Kind("drizzle"),
    FLOOR: Kind("floor"),
}
DRAWN = (OURS, LATER, "raw psycopg, autocommit", "psycopg_pool", "SQLAlchemy, QueuePool", "postgres-js", DRIZZLE, FLOOR)


class Flights(NamedTuple):
    """Round trips on the wire, without TCP's own: to the first row, and of a read when the client is warm."""

    first: int
    warm: float


class Turn(NamedTuple):
    """Milliseconds: to the first row, and of a warm read."""

    first: float
    warm: float


class Measured(NamedTuple):
    """What one client did in one mode; the turns are by the ms of the round trip."""

    flights: Flights
    turns: Mapping[int, list[Turn]]

    def firsts(self, distance: int) -> list[float]:
        """Give the times to the first row, a turn each."""
        return [turn.first for turn in self.turns[distance]]

    def warms(self, distance: int) -> list[float]:
        """Give the times of a warm read, a turn each."""
        return [turn.warm for turn in self.turns[distance]]


def main() -> None:
    """Measure, and keep the result."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        try:
            server = stack.enter_context(tls.running(18, Path(folder) / "s", tls.Certificates(Path(folder) / "c")))
            peers = stack.enter_context(running(PEERS, Path(folder)))
        except (binaries.Unavailable, tools.Missing) as missing:
            print(f"Without connecting: {missing}", file=sys.stderr)
            return
        url = server.postgres.url(stack.enter_context(server.postgres.database()))
        fill(url)
        proxy = stack.enter_context(Distance("127.0.0.1", server.postgres.port))
        measured = {mode: measure(peers, proxy, f"{proxy.url(url)}?sslmode={mode}") for mode in MODES}
    print(results.markdown(results.keep(report(measured))))


def measure(peers: Mapping[str, Peer], proxy: WireProxy, url: str) -> dict[str, Measured]:
    """Count the flights of each once, then give each its turn at each distance, TURNS times over."""
    fit = {name: peer for name, peer in peers.items() if "sslmode=require" in url or name != DIRECT}
    measured = {
        name: Measured(count(peer, proxy, url), {distance: [] for distance in ROUND_TRIPS})
        for name, peer in fit.items()
    }
    for _ in range(TURNS):
        for distance in ROUND_TRIPS:
            proxy.delay = distance / 2000
            for name, peer in fit.items():
                measured[name].turns[distance].append(turn(peer, url))
    return measured


def count(peer: Peer, proxy: WireProxy, url: str) -> Flights:
    """Count flights without a delay. Of a client that opens several connections at once, those of the longest count."""
    proxy.delay, proxy.settle = 0.0, 0.005
    peer.open(url)
    others = list(proxy.links)
    peer.first()
    first = max(link.count.flights for link in proxy.links if link not in others)
    peer.end()
    peer.warm(SETTLED)
    with proxy.count() as counted:
        peer.warm(SETTLED)
    peer.close()
    proxy.settle = 0.0
    return Flights(first, counted.flights / SETTLED)


def turn(peer: Peer, url: str) -> Turn:
    """Connect, read, and read again."""
    peer.open(url)
    first = peer.first()
    peer.end()
    warm = peer.warm(WARM_READS)
    peer.close()
    return Turn(first, warm)


def report(measured: Mapping[str, Mapping[str, Measured]]) -> results.Result:
    """Write a table for each mode, whether the goals are met, and plots of what goes over TLS."""
    encrypted = measured["require"]
    lines = {name: [(at, _middle(encrypted[name].firsts(at))) for at in ROUND_TRIPS] for name in DRAWN}
    bars = [(name, _middle(of.warms(FAR))) for name, of in encrypted.items()]
    return results.Result(
        name="connect",
        page="docs/PERFORMANCE.md",
        command="python -m bench.connect",
        tables=[*(_table(MODES[mode], of) for mode, of in measured.items()), _goals(encrypted)],
        plots=[
            results.Plot(
                "connect-first.svg",
                "Time to the first row over the round trip to the database, with TLS, a line for each client",
                "ms of a round trip",
                "ms to the first row, with TLS",
                lines,
            ),
            results.Plot(
                "connect-warm.svg",
                f"A warm read at {FAR} ms of round trip, with TLS, a bar for each client",
                f"ms of a warm read at {FAR} ms of round trip, with TLS",
                "",
                {"warm read": bars},
                "bars",
            ),
        ],
    )


def _table(mode: str, measured: Mapping[str, Measured]) -> results.Table:
    rows = [
        (
            name,
            f"{of.flights.first}",
            f"{of.flights.warm:g}",
            *(f"{statistics.median(of.firsts(at)):.1f}" for at in ROUND_TRIPS),
            *(f"{statistics.median(of.warms(at)):.1f}" for at in ROUND_TRIPS),
            f"{ratio(of.firsts(FAR), measured[FLOOR].firsts(FAR)):.2f}",
            f"{ratio(of.firsts(FAR), measured[DRIZZLE].firsts(FAR)):.2f}",
        )
        for name, of in measured.items()
    ]
    columns = (
        "",
        "flights to the first row",
        "flights of a warm read",
        *(f"first row, ms at {at} ms" for at in ROUND_TRIPS),
        *(f"warm read, ms at {at} ms" for at in ROUND_TRIPS),
        f"first row at {FAR} ms, x the floor",
        f"first row at {FAR} ms, x Drizzle",
    )
    return results.Table(
        f"Connecting {mode}, at {', '.join(map(str, ROUND_TRIPS))} ms of round trip",
        columns,
        rows,
        "The round trip in which TCP connects is in the times, and not among the flights.",
    )


def _goals(measured: Mapping[str, Measured]) -> results.Table:
    """Compare with the goals, and tell what the flights alone make of them: code can mend only the rest."""
    floor = measured[FLOOR].flights.first
    rows, parts = [], []
    for name in (OURS, LATER, DIRECT):
        value = ratio(measured[name].firsts(FAR), measured[DRIZZLE].firsts(FAR))
        rows.append((f"first row: {name} / Drizzle", "< 1.00", f"{value:.2f}", met(value < 1)))
    for name in (OURS, LATER, DIRECT):
        value = ratio(measured[name].firsts(FAR), measured[FLOOR].firsts(FAR))
        rows.append((f"first row: {name} / the floor", "<= 1.60", f"{value:.2f}", met(value <= 1.6)))
        flights = measured[name].flights.first
        parts.append(f"{(flights + 1) / (floor + 1):.2f} for {name} ({flights} flights)")
    warm = " and ".join(f"{measured[name].flights.warm:g}" for name in (OURS, DRIZZLE))
    rows.append(("flights of a warm read: this pool and Drizzle", "1 and 2", warm, met(warm == "1 and 2")))
    return results.Table(
        f"Goals, with TLS at {FAR} ms",
        ("", "Goal", "Measured", "Met"),
        rows,
        f"With TCP's, the flights alone make, against the floor's {floor}: {', '.join(parts)}. A first connection asks "
        "whether the server takes TLS. To begin without asking is safe only where it is known to be PostgreSQL 17 or "
        "newer: later connections know, or `sslnegotiation=direct` in the URL says so. The floor also sends its query "
        "before the server has proved itself, which no driver should.",
    )


def _middle(times: list[float]) -> float:
    return round(statistics.median(times), 2)


if __name__ == "__main__":
    main()

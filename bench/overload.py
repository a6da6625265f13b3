"""More requests than a server can answer, with slow statements among them: how soon it says so, and to whom.

    python -m bench.overload

First wrk with more and more connections, each of which waits for its answer. Then requests at a fixed rate, whatever
becomes of those before, as users come: most want a statement of 0.2 s, of which three times as many as a pool of ten
connections can do, the others a read by its key. Who waits for longer than its patience gives up.

Each server is measured once, one after the other: started anew for each number of connections, and for the requests
at the rate, and warmed up.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bench.peers import met
from bench.web_servers import DRIZZLE, FASTAPI, OURS, Server, running
from bench.wrk import Load, Wrk
from tests import results
from tests.deploy import tools

CONNECTIONS = (8, 64, 256)
SECONDS = 3  # of wrk, each
RATE = 250  # requests in a second
SLOW = 3 / 5  # of them
LASTING = 10.0  # seconds
PATIENCE = 5.0  # of who asks
RECOVERY = 30.0  # seconds for which a server's recovery is watched
QUICK = 3.0  # seconds, within which an answer is of use to somebody

_SLOW = '''"""Run a slow statement."""

from shared import db
from shared.web import Endpoint

endpoint = Endpoint("/api/slow/{id}")


@endpoint.get
def read(id: int) -> dict[str, int]:
    db.execute("SELECT pg_sleep(0.2)")
    return {"id": id}
'''


class Answer(NamedTuple):
    """What became of a request: its status, None where there was no answer in time, and the seconds that it took."""

    status: int | None
    seconds: float
    retry_after: bool = False


class Flood(NamedTuple):
    """What a server did with too many requests, and how long it took to be itself again (None: too long)."""

    answers: list[Answer]
    recovery: float | None


def main() -> None:
    """Measure, and keep the result."""
    loads: dict[str, list[Load]] = {}
    try:
        for connections in CONNECTIONS:
            with warm() as (wrk, servers):
                for name, each in servers.items():
                    loads.setdefault(name, []).append(wrk.run(each.url, SECONDS, connections))
        with warm() as (_, servers):
            floods = {name: asyncio.run(flood(each)) for name, each in servers.items()}
    except tools.Missing as missing:
        print(f"Without overload: {missing}", file=sys.stderr)
        return
    print(results.markdown(results.keep(report(loads, floods))))


@contextmanager
def warm() -> Iterator[tuple[Wrk, dict[str, Server]]]:
    """Start the servers anew, so that none suffers from a load before, and warm them up."""
    with running(functions={"slow.py": _SLOW}, variables={"DATABASE_POOL_MAX": "10"}, limits=False) as (wrk, servers):
        for each in servers.values():
            wrk.run(each.url, SECONDS)
        yield wrk, servers


async def flood(each: Server) -> Flood:
    """Send requests at the rate for as long, and then one, which tells when the server has time again.

    Raises RuntimeError where the server does not answer a read before.
    """
    before = await ask(f"{each.url}1", PATIENCE)
    if before.status != 200:
        raise RuntimeError(f"{each.url} does not answer before the flood: {before}")
    requests = []
    begun = time.perf_counter()
    for number in range(int(RATE * LASTING)):
        await asyncio.sleep(begun + number / RATE - time.perf_counter())
        is_slow = number % 10 < SLOW * 10
        url = each.url.replace("item", "slow") if is_slow else each.url
        requests.append(asyncio.create_task(ask(f"{url}{number % 1000 + 1}", PATIENCE)))
    ended = time.perf_counter()
    answers = await asyncio.gather(*requests)
    while time.perf_counter() - ended < RECOVERY:
        last = await ask(f"{each.url}1", RECOVERY - (time.perf_counter() - ended))
        if last.status == 200:
            return Flood(answers, time.perf_counter() - ended)
    return Flood(answers, None)


async def ask(url: str, patience: float) -> Answer:
    """Send one request on a connection of its own."""
    host, _, path = url.removeprefix("http://").partition("/")
    address, _, port = host.partition(":")
    begun = time.perf_counter()
    head = b""
    writer = None
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(address, int(port))
            writer.write(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.read()).lower()
    except (TimeoutError, OSError):
        pass
    finally:
        if writer is not None:
            writer.close()
    taken = time.perf_counter() - begun
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"http/1.") else None
    return Answer(status, taken, b"\r\nretry-after:" in head)


def report(loads: Mapping[str, Sequence[Load]], floods: Mapping[str, Flood]) -> results.Result:
    """Tell what became of all requests."""
    offered = [
        (
            name,
            *(f"{load.requests / load.seconds:.0f}" for load in of),
            *(f"{load.p50:.1f} / {load.p99:.1f}" if load.requests else "no answer" for load in of),
        )
        for name, of in loads.items()
    ]
    columns = (
        "",
        *(f"requests/s, {number} connections" for number in CONNECTIONS),
        *(f"p50 / p99, ms, {number} connections" for number in CONNECTIONS),
    )
    return results.Result(
        name="overload",
        page="docs/PERFORMANCE.md",
        command="python -m bench.overload",
        tables=[
            results.Table("Reads by key, with more connections than a server works on at once", columns, offered),
            _flooded(floods),
            _goals(floods),
        ],
        plots=[
            results.Plot(
                "overload.svg",
                "How many of the requests had an answer of any kind after so many seconds, a line for each server",
                "seconds since it was asked",
                "% of the requests that are answered",
                {name: _answered(of.answers) for name, of in floods.items()},
            )
        ],
    )


def _flooded(floods: Mapping[str, Flood]) -> results.Table:
    rows = []
    for name, flood in floods.items():
        good = [answer.seconds for answer in flood.answers if answer.status == 200]
        busy = [answer.seconds for answer in flood.answers if answer.status == 503 and answer.retry_after]
        none = sum(answer.status is None for answer in flood.answers)
        others = len(flood.answers) - len(good) - len(busy) - none
        number = len(flood.answers)
        recovery = f"over {RECOVERY:g}" if flood.recovery is None else f"{flood.recovery:.1f}"
        shares = (f"{count / number:.0%}" for count in (len(good), len(busy), others, none))
        rows.append((name, *shares, _percentiles(good), _percentiles(busy), recovery))
    columns = (
        "",
        "200",
        "503 with Retry-After",
        "another status",
        f"no answer in {PATIENCE:g} s",
        "p50 / p99 of a 200, s",
        "p50 / p99 of a 503, s",
        "s after the end until a read is answered",
    )
    return results.Table(
        f"{RATE} requests a second for {LASTING:g} s, {SLOW:.0%} of them a statement of 0.2 s",
        columns,
        rows,
        "A pool of 10 connections for this app, as in its compose file, and for Drizzle; SQLAlchemy's own is of 15.",
    )


def _goals(floods: Mapping[str, Flood]) -> results.Table:
    """Compare with what must be so of ours."""
    rows = []
    for name in (OURS, FASTAPI, DRIZZLE):
        answers = floods[name].answers
        soon = sum(answer.status is not None and answer.seconds <= QUICK for answer in answers) / len(answers)
        is_ours = name == OURS
        goal = ">= 99%" if is_ours else ""
        rows.append((f"answered within {QUICK:g} s: {name}", goal, f"{soon:.1%}", met(soon >= 0.99) if is_ours else ""))
    return results.Table("Goals", ("", "Goal", "Measured", "Met"), rows)


def _percentiles(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return ""
    cuts = statistics.quantiles(seconds, n=100)
    return f"{cuts[49]:.2f} / {cuts[98]:.2f}"


def _answered(answers: Sequence[Answer]) -> list[tuple[float | str, float]]:
    steps = [step / 10 for step in range(int(PATIENCE * 10) + 1)]
    return [
        (at, round(100 * sum(a.status is not None and a.seconds <= at for a in answers) / len(answers), 1))
        for at in steps
    ]


if __name__ == "__main__":
    main()

"""What the users of one instance do in an hour: reads and writes, and whatever else people do to an endpoint."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import json
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from tests.storms.function import EMAIL, ITEMS, PASSWORD
from tests.storms.wire import Reply, Wire

USERS = 4  # at once
THREADS = 50  # requests at once, more than an instance has threads for
_JSON = "content-type: application/json\r\n"
_numbers = itertools.count()

Told = list[tuple[int, int]]  # the status of each request, and the one that is right
Errand = Callable[[Wire], Awaitable[Told]]


async def _read(wire: Wire) -> Told:
    number = next(_numbers) % ITEMS
    reply = await wire.ask("GET", f"/api/item/{number}")
    assert reply.status != 200 or json.loads(reply.body)["id"] == number, "a wrong result"
    return [(reply.status, 200)]


async def _write(wire: Wire) -> Told:
    return [((await wire.ask("POST", f"/api/ledger/0/{next(_numbers)}")).status, 200)]


async def _mistake(wire: Wire) -> Told:
    replies = [
        (await wire.ask("GET", "/api/item/-1"), 404),
        (await wire.ask("GET", "/api/nothing"), 404),
        (await wire.ask("PUT", "/api/item/1"), 405),
        (await wire.ask("POST", "/api/ledger/0/99999999999"), 422),
        (await wire.ask("POST", "/api/auth/login", _JSON, b'{"email": 1}'), 422),
        (await wire.ask("GET", "/api/auth/me"), 401),
    ]
    return [(reply.status, right) for reply, right in replies]


async def _too_slow(wire: Wire) -> Told:
    """Have less time than the statement takes: it is cancelled on the server."""
    end = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat(timespec="milliseconds")
    reply = await wire.ask("GET", "/api/pause/5000", f"x-vercel-internal-deadline: {end}\r\n")
    return [(reply.status, 504)]


async def _visit(wire: Wire) -> Told:
    """Mistype the address, sign in, look, sign out."""
    number = next(_numbers)
    place = f"x-vercel-forwarded-for: {ipaddress.ip_address('10.0.0.0') + number}\r\n"  # tries are counted by it

    async def sign_in(email: str) -> Reply:
        body = json.dumps({"email": email, "password": PASSWORD}).encode()
        return await wire.ask("POST", "/api/auth/login", _JSON + place, body)

    wrong, right = await sign_in(f"{number}.{EMAIL}"), await sign_in(EMAIL)
    cookie = f"cookie: {right.headers.get('set-cookie', '').partition(';')[0]}\r\n"
    me = await wire.ask("GET", "/api/auth/me", cookie)
    out = await wire.ask("POST", "/api/auth/logout", cookie)
    gone = await wire.ask("GET", "/api/auth/me", cookie)
    statuses = [reply.status for reply in (wrong, right, me, out, gone)]
    return list(zip(statuses, [401, 200, 200, 204, 401], strict=True))


# How many of each in a thousand errands.
SHARES: Mapping[str, tuple[Errand, int]] = {
    "reads": (_read, 690),
    "writes": (_write, 297),
    "mistakes": (_mistake, 5),
    "timeouts": (_too_slow, 4),
    "visits": (_visit, 4),
}


async def fill(port: int) -> None:
    """Have an instance start every thread that it may: what it holds is to be flat from then on."""

    async def ask() -> None:
        wire = Wire(port)
        await wire.ask("GET", "/api/pause/100")
        wire.close()

    await asyncio.gather(*(ask() for _ in range(THREADS)))


async def run(port: int, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Run `count` errands at an instance, USERS at a time; count requests by kind, and list what was not right."""
    chance = random.Random(seed)
    names = [name for name, (_, share) in SHARES.items() for _ in range(share * count // 1000)]
    chance.shuffle(names)
    waiting = deque(names)
    served: Counter[str] = Counter()
    wrong: list[str] = []

    async def user() -> None:
        wire = Wire(port)
        while waiting:
            name = waiting.popleft()
            try:
                told = await SHARES[name][0](wire)
            except (OSError, EOFError, TimeoutError) as error:
                served[name] += 1
                wrong.append(f"{name}: {error!r}")
                continue
            served[name] += len(told)
            wrong.extend(f"{name}: {status} in the place of {right}" for status, right in told if status != right)
        wire.close()

    await asyncio.gather(*(user() for _ in range(USERS)))
    return served, wrong

"""What the benches over HTTP make of their measurements, and how they ask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from bench import http, overload
from bench.web_servers import ALONE, DRIZZLE, FASTAPI, OURS, OURS_PLAIN, POSTGRES_JS, STARLETTE, Server
from bench.wrk import Load
from tests import results

ALL = (OURS, OURS_PLAIN, ALONE, FASTAPI, DRIZZLE, POSTGRES_JS, STARLETTE)


def goals(result: results.Result) -> dict[str, tuple[str, str]]:
    table = next(table for table in result.tables if "Met" in table.columns)
    return {row[0]: (row[2], row[3]) for row in table.rows}


@pytest.mark.parametrize(("drizzle", "met"), [(1000.0, "yes"), (1001.0, "**no**")])
def test_the_goals_over_http(drizzle: float, met: str) -> None:
    rates = dict.fromkeys(ALL, 1200.0) | {DRIZZLE: drizzle, FASTAPI: 300.0}
    result = http.report({name: [http.Cost(rate, 1e6 / rate)] * 3 for name, rate in rates.items()})

    found = goals(result)

    assert found[f"{OURS} / {DRIZZLE}, requests/s"] == ("1.20", met)
    assert found[f"{OURS} / {FASTAPI}, requests/s"] == ("4.00", "yes")
    assert "100% is what the server takes" in results.markdown(result)


def test_what_becomes_of_too_many_requests_is_told() -> None:
    ours = [overload.Answer(200, 1.0)] * 5 + [overload.Answer(503, 2.0, retry_after=True)] * 4
    floods = {
        OURS: overload.Flood([*ours, overload.Answer(500, 0.1)], 0.5),
        FASTAPI: overload.Flood([overload.Answer(None, 5.0)] * 10, None),
        DRIZZLE: overload.Flood([overload.Answer(200, 4.0)] * 10, 20.0),
    }
    load = Load(1000, 1.0, 0, 1.0, 2.0)
    result = overload.report({name: [load] * 2 + [load._replace(requests=0)] for name in floods}, floods)

    rows = {row[0]: row[1:] for row in result.tables[1].rows}

    assert rows[OURS] == ("50%", "40%", "10%", "0%", "1.00 / 1.00", "2.00 / 2.00", "0.5")
    assert rows[FASTAPI] == ("0%", "0%", "0%", "100%", "", "", "over 30")
    assert goals(result)[f"answered within 3 s: {OURS}"] == ("100.0%", "yes")
    assert goals(result)[f"answered within 3 s: {DRIZZLE}"] == ("0.0%", "")
    assert result.plots[0].series[OURS][10] == (1.0, 60.0)


def test_a_server_that_does_not_answer_before_is_not_flooded() -> None:
    async def flood() -> None:
        async with answering("HTTP/1.1 500 Internal Server Error\r\n\r\n") as url:
            await overload.flood(Server(psutil.Process(), url))

    with pytest.raises(RuntimeError, match="does not answer before the flood: Answer\\(status=500"):
        asyncio.run(flood())


@asynccontextmanager
async def answering(text: str | None) -> AsyncIterator[str]:
    """Give the URL of a server that answers with this text, or never."""

    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if text is None:
            await reader.read()  # until who asks gives up
        else:
            writer.write(text.encode())
        writer.close()
        await writer.wait_closed()
        ended.set()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
        await ended.wait()


@pytest.mark.parametrize(
    ("text", "status", "retry_after"),
    [
        ("HTTP/1.1 200 OK\r\n\r\n{}", 200, False),
        ("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n{}", 503, True),
        ("", None, False),
        (None, None, False),
    ],
)
def test_who_asks_sees_the_answer_or_gives_up(text: str | None, status: int | None, retry_after: bool) -> None:
    async def ask() -> overload.Answer:
        async with answering(text) as url:
            return await overload.ask(url, 0.05 if text is None else 20)

    answer = asyncio.run(ask())

    assert (answer.status, answer.retry_after) == (status, retry_after)
    assert answer.seconds >= (0.05 if text is None else 0)

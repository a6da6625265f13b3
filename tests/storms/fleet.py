"""Many instances of the built function on one database: started a few at a time, frozen, thawed and ended."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.deploy.vercel_instance import WAIT, Instance
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres
from tests.servers.process import freeze, thaw
from tests.storms.function import Function

LIMITS = {"max_connections": 100, "default_pool_size": 20}  # of the server, and of the pooler before it
_AT_ONCE = 4  # that start: more would only take turns on two cores


@dataclass(frozen=True)
class Way:
    """How instances reach a database: the server itself, or a pooler before it."""

    server: Postgres
    database: str
    pooler: PgBouncer | None

    @property
    def name(self) -> str:
        """Name it as the tables do."""
        return "direct" if self.pooler is None else "pooler"

    @property
    def url(self) -> str:
        """What DATABASE_URL is."""
        url = self.server.url(self.database)
        return url if self.pooler is None else f"{self.pooler.url(url)}?pgbouncer=true"


@dataclass(frozen=True)
class Member:
    """One instance. Its sessions carry its name where no pooler shares them."""

    number: int
    name: str
    instance: Instance

    def freeze(self) -> None:
        """Stop the process, and return once it stands still."""
        freeze(self.instance.process)

    def thaw(self) -> None:
        """Let it go on."""
        thaw(self.instance.process)

    def terminate(self) -> None:
        """Say that its time is over, as a platform does."""
        self.instance.process.send_signal(signal.SIGTERM)


class Fleet:
    """The instances that run now, in `members`."""

    def __init__(self, function: Function, way: Way, stack: ExitStack, executor: ThreadPoolExecutor) -> None:
        self.way = way
        self.members: list[Member] = []
        self._function = function
        self._stack = stack
        # Its threads live as long as the fleet: an instance ends with the thread that started it.
        self._executor = executor
        self._started = 0

    def start(self, count: int) -> Sequence[Member]:
        """Start so many more, and return once they listen. None has a connection before its first request."""
        numbers = range(self._started, self._started + count)
        self._started += count
        fresh = list(self._executor.map(self._start, numbers))
        self.members += fresh
        return fresh

    def load_code(self) -> None:
        """Have every instance load all that it needs, and connect to nothing."""
        for answer in self._executor.map(lambda member: member.instance.get("/api/ready"), self.members):
            assert answer.status == 200, answer

    def take_out(self, members: Sequence[Member]) -> None:
        """Wait for the end of these, which were told that their time is over."""
        for member in members:
            code = member.instance.process.wait(WAIT)
            assert code in (0, -signal.SIGTERM), f"{member.name} ended with {code}"
        self.members = [member for member in self.members if member not in members]

    def errors(self) -> list[str]:
        """Take what the instances have logged as errors since this was asked last, their diagnosis first."""
        errors = []
        for member in self.members:
            logs, member.instance.logs[:] = list(member.instance.logs), []
            entries = [json.loads(text) for text in logs if '"level": "error"' in text]
            errors += [f"{entry.get('diagnosis')}: {entry['message']}" for entry in entries]
        return errors

    def _start(self, number: int) -> Member:
        name = f"storm-{number:03}"
        variables = {"DATABASE_URL": self.way.url, "VERCEL_DEPLOYMENT_ID": name}
        return Member(number, name, self._stack.enter_context(self._function.instance(**variables)))


@contextmanager
def running(function: Function, way: Way, count: int) -> Iterator[Fleet]:
    """Run a fleet of `count` instances."""
    with ThreadPoolExecutor(_AT_ONCE) as executor, ExitStack() as stack:
        fleet = Fleet(function, way, stack, executor)
        fleet.start(count)
        yield fleet

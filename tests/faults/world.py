"""The surroundings of one cell: servers, the way to them, and whether all is well in the end.

A cell is a fault and what was going on when it struck. Its test begins the activity, strikes, and then asks of the
world what holds for every cell: it works again without a restart, no write is lost or doubled, nobody is left behind.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from ops.backup import storage
from shared import db
from tests.faults import activities
from tests.faults.activities import Activity, Backup, Migrate, Told
from tests.faults.instances import NO_ANSWER, Instance, instance
from tests.faults.web_server import WebServer, web_server
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.watching import sessions, until

WARM, STRUCK, AFTER = 1, 2, 3  # the number of the run before the fault, of the one it strikes, and of the one after
WARM_TOO, NEXT, CHILD = 4, 5, 6  # of the first in another process, in the one after it, and of a forked child's
LEFT = 40.0  # seconds for a session to be gone whose client vanished: the server asks three times, after 15 s
HANG = activities.DEADLINE + 2.0  # seconds for a request to be answered: its deadline, and what a cancellation takes


class World:
    """What a fault and an activity meet in. `url` is the way that the activity takes to the database.

    `stack` is closed after the cell. `variables` hold for processes that start later.
    """

    def __init__(
        self,
        *,
        postgres: Postgres,
        database: str,
        url: str,
        proxy: WireProxy,
        driver: str,
        project: Path,
        folder: Path,
        stack: ExitStack,
        use: Callable[..., None],
    ) -> None:
        self.postgres = postgres
        self.database = database  # the direct URL
        self.url = url
        self.proxy = proxy
        self.driver = driver
        self.variables = {
            "DATABASE_URL": url,
            "DATABASE_DRIVER": driver,
            "DATABASE_DISABLE_SSL": "true",
            "APP_ENV": "test",
            "HEALTH_CACHE_SECONDS": "0",
            "REQUEST_TIMEOUT": f"{activities.DEADLINE:g}",
        }
        self._project = project
        self.folder = folder  # of backups
        self.stack = stack
        self._use = use
        self.leave = leave
        self.instance: Instance | None = None
        self.activity: Activity
        self.told: dict[int, Told] = {}

    def take(self, url: str) -> None:
        """Have the activity take another way to the database from now on."""
        self.url = self.variables["DATABASE_URL"] = url
        self._use(url)

    def choose(self, name: str) -> None:
        """Say what is going on."""
        kinds = {kind.name: kind for kind in activities.REQUESTS}
        if name in kinds:
            self.activity = kinds[name]()
        elif name == Migrate.name:
            self.activity = Migrate(self._project, self.variables)
        else:
            self.activity = Backup(self._project, self.variables, self.folder)

    @property
    def is_request(self) -> bool:
        """Tell whether it is a request to the app in this process."""
        return isinstance(self.activity, activities.Request)

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process that runs the activity, where it is not this one."""
        if isinstance(self.activity, activities.Command):
            return self.activity.process
        assert self.instance is not None
        return self.instance.process

    def ask(self, way: activities.Ask) -> None:
        """Say which way requests go from now on."""
        assert isinstance(self.activity, activities.Request)
        self.activity.ask = way

    def in_instance(self, number: int | None = WARM_TOO) -> Instance:
        """Have requests answered from now on by an app in a process of its own; with a number, it has a connection."""
        self.leave()
        running = self.instance = self.stack.enter_context(instance(self.variables))
        self.ask(running.ask)
        self.leave = running.leave
        assert number is None or self.run(number).is_answered
        return running

    def in_web_server(self, number: int = WARM_TOO) -> WebServer:
        """Have requests answered from now on by an app in a web server, which has a connection."""
        self.leave()
        running = self.stack.enter_context(web_server(self.variables))
        self.ask(running.ask)
        self.leave = running.leave
        assert self.run(number).is_answered
        return running

    def run(self, number: int = STRUCK) -> Told:
        """Run the activity to its end."""
        told = self.activity.run(number)
        self.told[number] = told
        if self.is_request:
            assert told.seconds < HANG, f"it hung for {told.seconds:.1f} s: {told}"
        return told

    def begin(self, number: int = STRUCK) -> Callable[[], Told]:
        """Begin the activity in a thread; what is given waits for its end."""
        future: Future[Told] = Future()

        def work() -> None:
            try:
                future.set_result(self.run(number))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return lambda: future.result(activities.PATIENCE + 10)

    def caught(self, statement: bytes | None = None) -> Callable[[], Told]:
        """Begin the activity and return when its statement is held on the way; `proxy.resume()` lets it go on.

        `statement` is another one of the activity's than its own.
        """
        trap = self.proxy.on("client", statement or self.activity.strike, do="pause")
        end = self.begin()
        trap.wait(activities.PATIENCE)
        return end

    def rows(self, sql: str) -> list[Any]:
        """Ask the server itself, as its superuser."""
        url = self.postgres.admin_url(self.database.rpartition("/")[2])
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    # -- what holds for every cell ---------------------------------------------------------------------

    def check(self) -> float:
        """Check that all is well again; give the seconds until the first answer after the fault."""
        begun = time.monotonic()
        told = self.run(AFTER)
        seconds = time.monotonic() - begun
        assert told.is_answered, f"it does not work again: {told}"
        self._check_ledger()
        if isinstance(self.activity, Migrate):
            self._check_schema()
        if isinstance(self.activity, Backup):
            self._check_backups(self.activity)
        statistics = self.leave()
        assert (statistics["in_use"], statistics["waiting"]) == (0, 0), statistics
        until(lambda: not sessions(self.postgres, self.database), LEFT)
        self.proxy.cut("rst")  # what a dead network holds ends with the proxy only
        until(lambda: not self.proxy.links)
        return seconds

    def _check_ledger(self) -> None:
        found = [number for (number,) in self.rows("SELECT n FROM ledger ORDER BY n")]
        assert len(found) == len(set(found)), f"a write is doubled: {found}"
        assert self.rows("SELECT writes FROM account") == [(len(found),)] * 2, "half a transaction"
        if isinstance(self.activity, activities.Write):
            for number, told in self.told.items():
                if told.is_answered:
                    assert number in found, "a committed write is lost"
                elif not (told.word == NO_ANSWER and self.activity.name == "COMMIT") and (
                    "transaction_resolution_unknown" not in told.word
                ):
                    assert number not in found, f"it was told {told.word}, and is there"

    def _check_schema(self) -> None:
        assert self.rows("SELECT version_num FROM alembic_version") == [(activities.REVISION[:14],)]
        assert self.rows("SELECT count(price) FROM item") == [(0,)], "it has the column"
        assert self.rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        until(lambda: self.rows(locks) == [(0,)])

    def _check_backups(self, backup: Backup) -> None:
        place, _ = storage.locate(str(backup.to))
        whole = [name for name in place.sizes() if name.endswith(".json")]
        answered = sum(told.is_answered for told in self.told.values())
        assert len(whole) == answered, f"{whole}: what failed looks whole, or what did not is not there"
        for name in whole:
            manifest = json.loads((backup.to / name).read_text("utf-8"))
            assert manifest["tables"]["public.item"] == 1000, manifest
            assert (backup.to / name.removesuffix(".json")).stat().st_size == manifest["size"]


def leave() -> dict[str, int]:
    """Close the connections of this process; give what its pool was like."""
    statistics = db.get_pool().statistics()
    db.close_db(grace=0)
    return statistics


def prepare(url: str) -> None:
    """Put what the activities use into a migrated database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(activities.PREPARE.encode())

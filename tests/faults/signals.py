"""Faults of the process: somebody ends it, in order or not, with work under way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from shared.web.sigterm import EXIT_CODE
from tests.deploy.container import DRAINING, STOPPED
from tests.faults import activities
from tests.faults.activities import Backup, Migrate, Told
from tests.faults.fault import fault
from tests.faults.instances import NO_ANSWER, forgets
from tests.faults.words import REQUESTS
from tests.faults.world import NEXT, World
from tests.migrations.conftest import Project
from tests.shared.db.watching import running, until

GONE = dict.fromkeys(REQUESTS, NO_ANSWER)
NO_SERVER = dict.fromkeys(REQUESTS, "Ctrl-C is for commands; a server gets SIGTERM")
NO_INDEX = dict.fromkeys((*REQUESTS, "backup"), "it builds no index")
FREED = 15.0  # seconds until the lock of a migration that was killed is free
INDEX = "CREATE INDEX CONCURRENTLY item_name_idx ON item (name);"


@fault(
    "SIGTERM under way",
    {**dict.fromkeys(REQUESTS, "answered"), "migration": "exit 130", "backup": "exit 130"},
)
def sigterm(world: World) -> Told:
    """Somebody stops the service, or cancels the build."""
    if not world.is_request:
        return _interrupted(world, signal.SIGTERM)
    server = world.in_web_server()
    end = world.caught()
    server.container.terminate()
    server.container.wait_for(DRAINING)
    world.proxy.resume()
    told = end()
    assert server.wait() == STOPPED
    assert "Traceback" not in server.container.output
    world.in_web_server(NEXT)
    return told


@fault("SIGTERM twice under way", {**GONE, "migration": "exit -15", "backup": "exit -15 | exit 130"})
def sigterm_twice(world: World) -> Told:
    """Somebody stops it, and will not wait until it has ended in order."""
    if world.is_request:
        server = world.in_web_server()
        end = world.caught()
        server.container.terminate()
        server.container.wait_for(DRAINING)
        server.container.terminate()
        told = end()
        assert server.wait() == EXIT_CODE
        world.proxy.resume()
        world.in_web_server(NEXT)
        return told
    end = world.caught()  # on the way: a migration waits for the statement's end
    process = world.process
    process.terminate()
    until(lambda: forgets(process, signal.SIGTERM))  # the second would be one with the first
    process.terminate()
    told = end()
    world.proxy.resume()
    return told


@fault("Ctrl-C under way", {"migration": "exit 130", "backup": "exit 130"}, never=NO_SERVER)
def ctrl_c(world: World) -> Told:
    """Whoever started it has changed their mind."""
    return _interrupted(world, signal.SIGINT)


@fault("kill -9 under way", {**GONE, "migration": "exit -9", "backup": "exit -9"})
def killed(world: World) -> Told:
    """The process is gone from one moment to the next: out of memory, out of time, or the machine's end."""
    if world.is_request:
        instance = world.in_instance()
        end = world.caught()
        instance.process.kill()
        told = end()
        world.proxy.resume()
        world.in_instance(NEXT)
        return told
    with _at_work(world) as end:
        world.process.kill()
        told = end()
        world.proxy.resume()
        until(lambda: not _locks(world), FREED)
    return told


@fault("kill -9 within CREATE INDEX CONCURRENTLY", {"migration": "exit -9"}, never=NO_INDEX)
def killed_within_index(world: World) -> Told:
    """The process is gone while the index is there and not yet valid."""
    project = Project(world.folder.with_name("index-project"))
    project.versions.add("29980101000000_index", INDEX, header="-- transaction: none")
    project.versions.add(activities.REVISION, activities.MIGRATION)
    world.activity = Migrate(project.path, world.variables)
    invalid = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('item_name_idx') AND NOT indisvalid"
    with _locked(world, "ROW EXCLUSIVE"):
        end = world.begin()
        until(lambda: running(world.postgres, world.database, "CREATE INDEX") and world.rows(invalid) == [(1,)])
        world.process.kill()
        told = end()
        until(lambda: not _locks(world), FREED)
        until(lambda: not running(world.postgres, world.database, "CREATE INDEX"), FREED)
    assert world.rows(invalid) == [(1,)]
    return told


def _interrupted(world: World, number: signal.Signals) -> Told:
    with _at_work(world) as end:
        world.process.send_signal(number)
        told = end()
        world.proxy.resume()
    until(lambda: not _locks(world))
    if isinstance(world.activity, Migrate):
        assert "It was rolled back" in told.details, told
    if isinstance(world.activity, Backup):
        assert not list(world.folder.iterdir()), "it has cleaned up"
    return told


@contextmanager
def _at_work(world: World) -> Iterator[Callable[[], Told]]:
    """Begin a command; in the block it is at its statement, a migration's on the server."""
    if not isinstance(world.activity, Migrate):
        yield world.caught()
        return
    with _locked(world, "ACCESS SHARE"):
        end = world.begin()
        until(lambda: [s for s in running(world.postgres, world.database, "ALTER TABLE") if s.wait_event == "relation"])
        yield end


@contextmanager
def _locked(world: World, mode: str) -> Iterator[None]:
    with psycopg.connect(world.postgres.admin_url(world.database.rpartition("/")[2])) as other:
        other.execute(f"LOCK TABLE item IN {mode} MODE".encode())
        yield


def _locks(world: World) -> bool:
    """Tell whether somebody has the migrations' lock."""
    return world.rows("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted") != [(0,)]

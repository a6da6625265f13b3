"""A server for one verification: the build of this machine that has the dump's extensions, in a folder that goes."""

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ops import embedded
from ops.backup import tools
from ops.backup.tools import Tools
from ops.postgres_server import PostgresServer
from ops.processes import is_alive
from shared.errors import LocalEnvironmentError

_USER = "scratch"
# It need not survive a crash.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_locks_per_transaction": "1024",
}
_PORTS = range(25000, 32000)


class Choice(NamedTuple):
    """Binaries to run a server from, and the extensions that they lack."""

    tools: Tools
    missing: tuple[str, ...]


def choose(*, at_least: int, extensions: Collection[str], report: embedded.Report) -> Choice:
    """Choose the build with the most of `extensions`, and of those the oldest from `at_least` on.

    Raises LocalEnvironmentError where there is none.
    """
    servers = [found for found in tools.found() if found.has("postgres") and found.has("initdb")]
    if not any(found.major >= at_least for found in servers):
        embedded.find_binaries(report)
        servers = [found for found in tools.found() if found.has("postgres") and found.has("initdb")]
    choices = [
        Choice(found, tuple(sorted(set(extensions) - found.extensions))) for found in servers if found.major >= at_least
    ]
    if not choices:
        have = ", ".join(sorted({found.version for found in servers})) or "none"
        raise LocalEnvironmentError(
            f"The dump needs a server of PostgreSQL {at_least} or newer to be restored into; this machine has {have}.",
            solutions=[f"Install one: apt install postgresql-{at_least}. It need not run."],
        )
    return min(choices, key=lambda choice: (len(choice.missing), choice.tools.major))


@contextmanager
def running(choice: Choice) -> Iterator[PostgresServer]:
    """Run a new server from these binaries until the block ends. Raises LocalEnvironmentError."""
    data = embedded.ROOT / ".data"
    data.mkdir(exist_ok=True)
    for left in data.glob("scratch-*"):
        pid = left.name.removeprefix("scratch-")
        if pid.isdigit() and not is_alive(int(pid)):  # its server ended with it
            shutil.rmtree(left, ignore_errors=True)
    folder = data / f"scratch-{os.getpid()}"
    folder.mkdir()
    port = next(port for port in iter(lambda: secrets.choice(_PORTS), None) if not embedded.somebody_listens(port))
    server = PostgresServer(
        choice.tools.directory,
        folder / "data",
        port=port,
        user=_USER,
        password=secrets.token_urlsafe(18),
        settings=_SETTINGS,
        environ=choice.tools.environ,
    )
    try:
        server.init()
        server.start(die_with_parent=True)
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)

"""Make a backup: pg_dump's output streamed to its place, and the manifest of the same snapshot after it."""

import os
import re
import selectors
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from itertools import count
from typing import IO

import psycopg

from migrations import connection as connections
from migrations import lock
from migrations.connection import Connection
from ops.backup import contents, manifest, storage, tools
from ops.backup.manifest import Manifest
from ops.backup.progress import Bar, bar, readable
from ops.backup.storage import Place
from ops.backup.tools import Tools
from ops.processes import die_with_parent
from shared.errors import BackupError, LocalEnvironmentError, LockTimeout, Refused
from shared.settings import get_settings

Report = Callable[[str], None]

_CHUNK = 256 * 1024
_TABLE = re.compile(r"dumping contents of table \"(.+?)\"")


def create(to: str, *, report: Report, reason: str = "asked for") -> tuple[str, Manifest]:
    """Back up DATABASE_URL's database under the migration lock; give where its dump is, and its manifest.

    Raises DirectConnectionRequired behind a pooler, LockTimeout, LocalEnvironmentError without a fitting pg_dump,
    DatabaseUnavailable, and BackupError where it failed: nothing that looks whole is left then.
    """
    place, name = storage.locate(to)
    url = connections.direct_url()
    with lock.taken("db backup", report=report) as connection:
        connections.check_direct(connection, _backend_pid(connection))
        connections.lift_transaction_timeout(connection)
        chosen = tools.choose(
            at_least=connection.info.server_version // 10000,
            tls=bool(connection.pgconn.ssl_in_use),
            purpose="A backup of this server",
        )
        series, time = manifest.series_of(url), manifest.now()
        there = place.sizes()
        if name is None:
            names = (manifest.name_of(series, time + timedelta(seconds=later)) for later in count())
            name = next(free for free in names if free not in there)
        elif name in there:
            raise Refused(f"{place.text}: {name} is there already.", solutions=["Name another file, or a folder."])
        # Under the lock nobody else backs up this database, so whoever began these is gone.
        for left in place.discard_unfinished(f"{series}-") + place.discard_unfinished(name):
            report(f"Removed {left}, which an interrupted backup left unfinished")
        with connection.transaction():
            snapshot, found = _snapshot(connection)
            size, digest = _dump(chosen, place, name, snapshot, found)
        made = Manifest(
            database=url.database,
            host=f"{url.host}:{url.port}",
            taken_at=time.isoformat(),
            reason=reason,
            server_version=connection.info.parameter_status("server_version") or "",
            pg_dump_version=chosen.version,
            schema_head=found.schema_head,
            size=size,
            sha256=digest,
            tables=found.tables,
            large_objects=found.large_objects,
            extensions=found.extensions,
            owners=found.owners,
            roles=found.roles,
        )
        try:
            storage.write_all(place, manifest.manifest_name(name), made.render())
        except BaseException:
            with suppress(BackupError, LocalEnvironmentError, OSError):
                place.remove(name)
            raise
        _record(connection)
    where = os.path.join(place.text, name)  # noqa: PTH118 - not only paths
    rows = sum(found.tables.values())
    report(f"Backed up {url.database} to {where}: {readable(size)}, {len(found.tables)} tables, {rows} rows")
    return where, made


def snapshot_before_migration(to: str, *, report: Report) -> None:
    """Back up before migrations that are pending; where none is, do nothing."""
    from migrations import runner

    if not runner.status().pending:
        report("Nothing is pending, so no backup was made")
        return
    create(to, report=report, reason="before a migration")


def _record(connection: Connection) -> None:
    """Note in the database that it was backed up, for the health checks; where there is no room for that, do without.

    It is no proof: the manifest in its place is.
    """
    unknown = psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn
    refused = psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction  # by a standby
    with suppress(*unknown, *refused):
        connection.execute("UPDATE migration_state SET backed_up_at = now()")


def _backend_pid(connection: Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(str(row[0]))


def _snapshot(connection: Connection) -> tuple[str, contents.Contents]:
    """Begin the transaction whose snapshot pg_dump shares (manual 9.28.5), and look what is in it."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    try:
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        found = contents.read(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"This user may not read everything, so a backup would not be whole: {error.diag.message_primary}.",
            solutions=[
                "Back up as the owner of the tables, or as a role with pg_read_all_data.",
                "Where row-level security is in the way: ALTER ROLE ... BYPASSRLS, or back up as the table's owner.",
            ],
            sqlstate=error.sqlstate,
        ) from None
    except psycopg.errors.LockNotAvailable:
        raise LockTimeout(
            "Somebody has locked a table against every reader, for longer than MIGRATION_LOCK_TIMEOUT.",
            solutions=["See who: db health", "Then run this again."],
        ) from None
    assert row is not None
    return str(row[0]), found


def _dump(chosen: Tools, place: Place, name: str, snapshot: str, found: contents.Contents) -> tuple[int, str]:
    """Stream pg_dump's output to its place; give its size and SHA-256."""
    url = connections.direct_url()
    command = [
        chosen.path("pg_dump"),
        "--format=custom",
        f"--snapshot={snapshot}",
        # Who asks to lock a table against readers waits for our own transaction, which has counted its rows, and
        # pg_dump would wait behind them: for ever, since the server sees no deadlock in that.
        f"--lock-wait-timeout={get_settings().migration_lock_timeout * 1000:.0f}",
        "--no-password",
        "--verbose",  # names each table, which moves the bar
        f"--dbname={tools.arguments(url)}",
    ]
    total = sum(found.table_bytes.values())
    with place.write(name) as target, bar("Backing up", total) as shown:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=chosen.environ_for(url),
            preexec_fn=die_with_parent if os.name == "posix" else None,
        )
        try:
            size, digest, problems = _pump(process, target, _Tables(found.table_bytes, shown))
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
        if code != 0:
            raise BackupError(
                f"pg_dump failed: {problems or f'it was ended (exit code {code})'}",
                solutions=["Nothing was kept of it. Run it again once the cause is gone."],
            )
    return size, digest


class _Tables:
    """Move the bar as pg_dump goes from table to table."""

    def __init__(self, sizes: dict[str, int], shown: Bar) -> None:
        self._sizes = sizes
        self._shown = shown
        self._under_way = 0

    def line(self, text: str) -> None:
        """Take a line of what pg_dump says."""
        if match := _TABLE.search(text):
            self._shown.advance(self._under_way)
            self._under_way = self._sizes.get(match[1], 0)

    def written(self, size: int) -> None:
        """Take the size of what was written so far."""
        self._shown.note(f"{readable(size)} written")


def _pump(process: subprocess.Popen[bytes], target: IO[bytes], tables: _Tables) -> tuple[int, str, str]:
    """Carry pg_dump's output on, and read what it says; give size, SHA-256, and the errors among its words."""
    assert process.stdout is not None
    assert process.stderr is not None
    size, digest, said, errors = 0, sha256(), b"", []
    with selectors.DefaultSelector() as ready:
        for pipe in (process.stdout, process.stderr):
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select():
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    ready.unregister(key.fileobj)
                elif key.fd == process.stdout.fileno():
                    digest.update(chunk)
                    target.write(chunk)
                    size += len(chunk)
                    tables.written(size)
                else:
                    *lines, said = (said + chunk).split(b"\n")
                    for line in lines:
                        text = line.decode(errors="replace")
                        tables.line(text)
                        if re.search(r"\b(error|fatal|detail|hint):", text, re.IGNORECASE):
                            errors.append(text.removeprefix("pg_dump: ").strip())
    return size, digest.hexdigest(), " ".join(errors)

"""Copy a whole server for point-in-time recovery: pg_basebackup, checked, into a folder that appears when whole."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from migrations import connection as connections
from migrations.connection import session
from ops.backup import archive, manifest, tools
from ops.processes import die_with_parent, is_alive
from shared.errors import BackupError, Refused

Report = Callable[[str], None]


def create(to: str, *, report: Report) -> Path:
    """Copy the server of DATABASE_URL into a new folder below `to`; give it.

    The user must have the right REPLICATION. Raises Refused, BackupError, LocalEnvironmentError, DatabaseUnavailable.
    """
    url = connections.direct_url()
    with session("db basebackup") as connection:
        row = connection.execute(
            """
            SELECT pg_backend_pid(), rolreplication OR rolsuper, quote_ident(rolname), current_setting('wal_level'),
                   current_setting('archive_mode')
            FROM pg_roles WHERE rolname = current_user
            """
        ).fetchone()
        assert row is not None
        connections.check_direct(connection, int(str(row[0])))
        if not row[1]:
            raise Refused(
                f"The user {row[2]} may not copy the server: it lacks the right REPLICATION.",
                solutions=[
                    f"As a superuser: ALTER ROLE {row[2]} REPLICATION;",
                    "Where the server is not yours, use the provider's own point-in-time recovery, and db backup.",
                ],
            )
        if row[3] == "minimal":
            raise Refused(
                "The server's wal_level is minimal, which leaves out what a copy of a running server needs.",
                solutions=["ALTER SYSTEM SET wal_level = 'replica'; then restart the server."],
            )
        major = connection.info.server_version // 10000
        programs = ("pg_basebackup", "pg_verifybackup")
        chosen = tools.choose(
            at_least=major, tls=bool(connection.pgconn.ssl_in_use), purpose="Copying this server", programs=programs
        )
    folder = Path(to).expanduser() / f"base-{manifest.now():%Y%m%dT%H%M%SZ}"
    for left in folder.parent.glob("base-*.part"):
        pid = left.name.split(".")[1]
        if not (pid.isdigit() and is_alive(int(pid))):
            shutil.rmtree(left)
            report(f"Removed {left}, which an interrupted copy left unfinished")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    unfinished.mkdir(parents=True, mode=0o700)
    try:
        report(f"Copying the server to {folder}")
        _run(
            [
                *(chosen.path("pg_basebackup"), f"--dbname={tools.arguments(url)}", f"--pgdata={unfinished}"),
                *("--checkpoint=fast", "--wal-method=stream", "--no-password"),
                *(["--progress"] if os.isatty(2) else []),
            ],
            chosen.environ_for(url),
        )
        # WAL is read by programs of its own major version only.
        wal = [] if chosen.major == major else ["--no-parse-wal"]
        _run([chosen.path("pg_verifybackup"), "--quiet", *wal, str(unfinished)], chosen.environ)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    report(f"Copied and checked: {folder}")
    if row[4] == "off":
        report("The server archives no WAL (archive_mode is off): this copy restores to its own end and no later")
    return folder


def _run(command: list[str], environ: dict[str, str]) -> None:
    """Run one of PostgreSQL's programs; its progress goes to the terminal. Raises BackupError with what it said."""
    quiet = "--progress" not in command
    done = subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=die_with_parent if os.name == "posix" else None,
    )
    if done.returncode != 0:
        said = archive.brief(archive.words_of(done.stderr or done.stdout)) or f"exit code {done.returncode}"
        raise BackupError(
            f"{Path(command[0]).name} failed: {said}.",
            solutions=[
                "Nothing was kept of it.",
                "It connects as for replication: pg_hba.conf needs a line for the database `replication`.",
            ],
        )

"""Restore a backup into DATABASE_URL's database, in one transaction: all of it, or nothing is changed."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from migrations import connection as connections
from migrations import lock, tag
from migrations.connection import Connection, session
from ops.backup import archive, contents, dump, tools
from ops.backup.archive import Backup, Header
from ops.backup.manifest import Manifest
from ops.backup.progress import bar
from ops.backup.tools import Tools
from ops.processes import die_with_parent
from shared.errors import BackupError, Refused
from shared.settings import get_settings

Report = Callable[[str], None]
# Asks a person for the database's name; gives whether it was typed.
Consent = Callable[[str], bool]

_LOCK_TIMEOUT = "60s"  # for what is dropped; pg_restore's own statements wait as long as they must


def restore(where: str, *, consent: Consent, safety_to: str | None, report: Report) -> None:
    """Check a backup in full, then restore it into an empty database, or with `consent` in place of what is there.

    What is there is backed up before, to `safety_to` or beside the backup. Raises BackupError where the dump is damaged
    or the server refused a part of it, Refused where it must not be done so; the database is as it was then.
    """
    backup = archive.find(where)
    header = archive.header(backup)
    program = tools.choose(at_least=header.pg_dump_major, purpose="Reading this dump")
    report(f"Reading {backup.text}")
    archive.check(backup, program)
    with session("db restore") as connection:
        _check_target(connection, header)
        empty = contents.is_empty(connection)
        if not empty:
            # Raises EnvironmentMismatch where APP_ENV names another environment than this database's.
            tag.in_force(get_settings(), tag.read(connection))
            if not consent(connections.direct_url().database):
                raise Refused(
                    "The database is not empty, and nobody agreed to replace what is in it.",
                    solutions=[
                        "Restore into a new, empty database: that is safer, and can be looked at first.",
                        f"Or insist: db restore {where} --yes-i-mean {connections.direct_url().database}",
                    ],
                )
    if not empty:
        saved, _ = dump.create(safety_to or backup.place.text, reason="before a restore", report=report)
        report(f"What is there now can be restored from {saved}")
    with lock.taken("db restore", report=report) as connection:
        if empty and not contents.is_empty(connection):
            raise Refused("Somebody has just filled the database.", solutions=["Look who, then run this again."])
        options = _ownership(connection, backup.manifest, report)
        before = [] if empty else contents.emptying(connection)
        tls = bool(connection.pgconn.ssl_in_use)
        program = tools.choose(at_least=header.pg_dump_major, tls=tls, purpose="Restoring into this server")
        old_server = connection.info.server_version < 170000 and program.major >= 17
        _restore(backup, program, options, before, old_server=old_server)
        connection.execute("ANALYZE")
        _report(connection, backup, report)


def _check_target(connection: Connection, header: Header) -> None:
    row = connection.execute("SELECT pg_backend_pid(), pg_is_in_recovery()").fetchone()
    assert row is not None
    connections.check_direct(connection, int(str(row[0])))
    if row[1]:
        raise Refused(
            "The server is a standby (read replica), which cannot be restored into.",
            solutions=["Point DATABASE_URL at the primary."],
        )
    major = connection.info.server_version // 10000
    if major < header.server_major:
        raise Refused(
            f"The dump was made of PostgreSQL {header.server_version}, and this server is PostgreSQL {major}: an older "
            "server may not know what is in it.",
            solutions=[f"Restore into PostgreSQL {header.server_major} or newer."],
        )


def _ownership(connection: Connection, known: Manifest | None, report: Report) -> list[str]:
    """Choose pg_restore's options: owners and rights are kept where their roles are there, and may be used."""
    if known is None:
        report("Without a manifest: everything will belong to this user, and rights (GRANT) are left out")
        return ["--no-owner", "--no-privileges"]
    row = connection.execute(
        """
        SELECT coalesce(array_agg(r.rolname), '{}'), coalesce(array_agg(r.rolname) FILTER (
            WHERE pg_has_role(current_user, r.oid, 'SET')), '{}')
        FROM pg_roles r WHERE r.rolname = ANY (%s)
        """,
        [known.roles],
    ).fetchone()
    assert row is not None
    there: set[str] = set(row[0])  # type: ignore[call-overload]
    usable: set[str] = set(row[1])  # type: ignore[call-overload]
    options = []
    if foreign := sorted(set(known.owners) - usable):
        report(f"Everything will belong to this user: it is no member of {', '.join(foreign)}")
        options.append("--no-owner")
    if absent := sorted(set(known.roles) - set(known.owners) - there):
        report(f"Rights (GRANT) are left out: this server has no role {', '.join(absent)}")
        options.append("--no-privileges")
    elif set(known.owners) - there:
        options.append("--no-privileges")  # an owner's own grants name it
    return options


def _restore(backup: Backup, program: Tools, options: list[str], before: list[str], *, old_server: bool) -> None:
    """Pass pg_restore's SQL through psql, between a BEGIN and a COMMIT of ours.

    The COMMIT is sent when pg_restore has ended well: if this process, or any other of these, is killed before, psql
    finds the end of its input without one, and the server rolls back.
    """
    url = connections.direct_url()
    psql = [program.path("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--no-password"]
    psql += ["--file=-", f"--dbname={tools.arguments(url)}"]
    source = [program.path("pg_restore"), "--format=custom", "--file=-", "--no-tablespaces", *options]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            psql,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=program.environ_for(url),
            preexec_fn=die_with_parent if os.name == "posix" else None,
        )
        assert process.stdin is not None
        try:
            failure = _send(backup, source, program, before, process.stdin, old_server=old_server)
        except BrokenPipeError:
            failure = None  # psql has ended, and says why
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        code = process.wait()
        said.seek(0)
        problems = archive.words_of(said.read().decode(errors="replace"))
    # psql complains, too, of SQL that ends in the middle; and pg_restore of a psql that has ended.
    if failure is not None and archive.BROKEN_PIPE not in failure:
        raise archive.damaged(backup, archive.brief(failure))
    if code != 0 or failure is not None:
        raise _refused(backup, problems or f"psql was ended (exit code {code})")


def _send(
    backup: Backup, source: list[str], program: Tools, before: list[str], target: IO[bytes], *, old_server: bool
) -> str | None:
    begin = ["BEGIN;", f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';", "SET LOCAL client_min_messages = warning;"]
    target.write("\n".join([*begin, *before, ""]).encode())
    target.flush()
    with bar("Restoring", backup.size) as shown:
        if not old_server:
            failure = archive.feed(backup, source, program.environ, shown, output=target.fileno())
        else:
            # PostgreSQL 16 does not know the one setting that a newer pg_restore makes.
            sed = subprocess.Popen(
                ["sed", "1,100{/^SET transaction_timeout = 0;$/d;}"], stdin=subprocess.PIPE, stdout=target.fileno()
            )
            assert sed.stdin is not None
            try:
                failure = archive.feed(backup, source, program.environ, shown, output=sed.stdin.fileno())
            finally:
                sed.stdin.close()
                sed.wait()
    if failure is None:
        target.write(b"\nCOMMIT;\n")
        target.flush()
    return failure


def _refused(backup: Backup, problems: str) -> BackupError:
    advice = ["The database is as it was before: everything happens in one transaction."]
    if "lock timeout" in problems:
        advice.append("Somebody uses the tables that are replaced: stop the application, then run this again.")
    if "max_locks_per_transaction" in problems:
        advice.append("Raise max_locks_per_transaction on the server; it takes a restart.")
    if "is not available" in problems or "permission denied to create extension" in problems:
        advice.append(
            "Install the extension on the server, or have its administrator create it in this database first."
        )
    if "role " in problems:
        advice.append("Create the role first; roles belong to the server, and are in no backup of a database.")
    return BackupError(
        f"{backup.text} was not restored: the server refused. {archive.brief(problems)}.", solutions=advice
    )


def _report(connection: Connection, backup: Backup, report: Report) -> None:
    known = backup.manifest
    with connection.transaction():
        found = contents.read(connection)
    report(f"Restored {len(found.tables)} tables, {sum(found.tables.values())} rows, from {backup.text}")
    if known is not None and found.tables != known.tables:
        different = [
            name for name in {*known.tables, *found.tables} if known.tables.get(name) != found.tables.get(name)
        ]
        report(f"Rows differ from the manifest in {', '.join(sorted(different)[:10])}: somebody writes already")
    settings = get_settings()
    theirs = tag.read(connection)
    if theirs is not None and settings.environment_is_named and theirs != settings.environment:
        report(f"The database is tagged {theirs} now, as the one it came from: db migrate tag {settings.environment}")

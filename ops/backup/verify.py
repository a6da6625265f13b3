"""Verify a backup: read all of it, restore it into a scratch server, and compare what is there with its manifest."""

import re
from collections.abc import Callable
from typing import NamedTuple

import psycopg
from psycopg import sql

from ops.backup import archive, contents, manifest, scratch, storage, tools
from ops.backup.archive import Backup
from ops.backup.progress import bar
from ops.postgres_server import PostgresServer
from shared.db.url import DatabaseURL
from shared.errors import BackupError, LocalEnvironmentError

Report = Callable[[str], None]

# What a dump of another machine's server may ask for that a scratch server cannot give. None of it is the dump's fault.
_NOT_HERE = re.compile(
    r'extension "(?P<extension>[^"]+)" is not available'
    r'|could not open extension control file ".*/(?P<control>[^/"]+)\.control"'
    r'|(?P<library>could not access file "[^"]+")'
    r'|collation (?P<collation>"[^"]+") (?:for encoding "[^"]+" )?does not exist'
    r"|(?P<icu>ICU is not supported in this build)"
    r'|(?P<setting>unrecognized configuration parameter "[^"]+")'
    r'|(?P<tablespace>tablespace "[^"]+" does not exist)'
    r'|(?P<language>language "[^"]+" does not exist)'
)
_NO_ROLE = re.compile(r'role "((?:[^"]|"")+)" does not exist')
_DISK_FULL = re.compile(r"No space left on device|could not extend file")
_ROLES_TRIED = 100


class Outcome(NamedTuple):
    """What a verification came to: with nothing missing, the backup is verified."""

    backup: Backup
    with_what: str
    missing: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Tell whether everything was restored and compared."""
        return not self.missing


def verify(where: str, *, report: Report) -> Outcome:
    """Verify a backup, or the newest of a folder, and note it in its manifest.

    Raises BackupError where the dump is damaged or differs from its manifest; LocalEnvironmentError where this machine
    cannot tell.
    """
    backup = archive.find(where, newest=True)
    report(f"Reading {backup.text}")
    header = archive.header(backup)
    reader = tools.choose(at_least=header.pg_dump_major, purpose="Reading this dump")
    archive.check(backup, reader)
    known = backup.manifest
    remarks = [] if known else [
        "It has no manifest, as a dump by plain pg_dump: its checksum, its rows and its schema revision cannot be "
        "compared with those of the database that it came from."
    ]  # fmt: skip
    choice = scratch.choose(
        at_least=max(header.server_major, header.pg_dump_major),
        extensions=known.extensions if known else (),
        report=report,
    )
    report(f"Restoring it into a scratch server, PostgreSQL {choice.tools.version}")
    with scratch.running(choice) as server:
        missing = _restore(backup, choice, server)
        with psycopg.connect(server.url("verified"), autocommit=True) as connection, connection.transaction():
            found = contents.read(connection)
    if known and not missing:
        _compare(backup, known, found)
    with_what = f"PostgreSQL {choice.tools.version}"
    if known and not missing:
        storage.write_all(backup.place, manifest.manifest_name(backup.name), known.verified(with_what).render())
    if not known:
        remarks.append(
            f"It was restored in full: {len(found.tables)} tables, {sum(found.tables.values())} rows, "
            f"{found.large_objects} large objects, schema revision {found.schema_head or 'none'}."
        )
    return Outcome(backup, with_what, missing, tuple(remarks))


def _restore(backup: Backup, choice: scratch.Choice, server: PostgresServer) -> tuple[str, ...]:
    """Restore into a new database `verified`; give what this machine lacks for it. Raises BackupError."""
    program = choice.tools
    command = [program.path("pg_restore"), "--format=custom", "--no-owner", "--no-privileges", "--no-tablespaces"]
    command += ["--no-subscriptions", "--no-security-labels", "--no-password"]
    url = DatabaseURL.parse(server.url("verified"))
    command.append(f"--dbname={tools.arguments(url)}")
    strict = [*command, "--exit-on-error"]
    for _ in range(_ROLES_TRIED):
        _new_database(server)
        with bar("Restoring", backup.size) as shown:
            said = archive.feed(backup, strict, program.environ_for(url), shown)
        if said is None:
            return ()
        if role := _NO_ROLE.search(said):  # policies name roles, which belong to the server and are in no dump
            with psycopg.connect(server.url(), autocommit=True) as connection:
                name = role[1].replace('""', '"')
                connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
            continue
        if _DISK_FULL.search(said):
            raise LocalEnvironmentError(
                "The disk is full: the scratch server needs as much room under .data/ as the database itself.",
                solutions=["Make room, or verify on another machine."],
            )
        if not (missing := _missing(said)):
            raise BackupError(
                f"{backup.text} was read in full, and cannot be restored: {archive.brief(said)}.",
                solutions=["Use another backup: db backups lists them."],
            )
        # Whatever depends on what is missing fails too; the rest is restored and looked at.
        _new_database(server)
        with bar("Restoring", backup.size) as shown:
            said = archive.feed(backup, command, program.environ_for(url), shown)
        missing += _missing(said or "") + tuple(f"extension {name}" for name in choice.missing)
        return tuple(sorted(set(missing)))
    raise BackupError(f"{backup.text} names more than {_ROLES_TRIED} roles.", solutions=["Restore it by hand."])


def _missing(said: str) -> tuple[str, ...]:
    found = []
    for match in _NOT_HERE.finditer(said):
        kind, value = next((kind, value) for kind, value in match.groupdict().items() if value)
        found.append({"extension": f"extension {value}", "control": f"extension {value}"}.get(kind, f"{kind} {value}"))
    return tuple(dict.fromkeys(found))


def _new_database(server: PostgresServer) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS verified WITH (FORCE)")
        connection.execute("CREATE DATABASE verified TEMPLATE template0")


def _compare(backup: Backup, known: manifest.Manifest, found: contents.Contents) -> None:
    """Raise BackupError where what was restored is not what the manifest says."""
    different = [
        f"{table}: {rows} rows in the database, {found.tables.get(table, 'none')} in the dump"
        for table, rows in known.tables.items()
        if found.tables.get(table) != rows
    ]
    different += [f"{table}: not in the manifest" for table in found.tables if table not in known.tables]
    if found.large_objects != known.large_objects:
        different.append(f"{known.large_objects} large objects in the database, {found.large_objects} in the dump")
    if found.schema_head != known.schema_head:
        different.append(f"schema revision {known.schema_head} in the database, {found.schema_head} in the dump")
    if different:
        raise BackupError(
            f"{backup.text} is not what its manifest says: {'; '.join(different[:10])}.",
            solutions=["Use another backup, and make a new one: db backup --to FOLDER"],
        )

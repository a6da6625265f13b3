"""`db backup`, `db backups`, `db restore` and `db basebackup`."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.backup import basebackup, dump, retention, storage
from ops.backup import restore as restoring
from ops.backup import verify as verifying
from ops.backup.progress import readable
from shared.errors import BackupError, ConfigurationError, Refused

app = typer.Typer(
    help="Back up the database; `verify` restores a backup elsewhere and compares.", invoke_without_command=True
)

_PLACE = "A folder, a file, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."
To = Annotated[str, typer.Option("--to", help=_PLACE)]
Newest = Annotated[str, typer.Argument(metavar="BACKUP", help="A dump, or a folder or prefix: its newest backup.")]
Backup = Annotated[str, typer.Argument(help="A dump: a file, s3://... or gs://...")]


@app.callback()
def backup(
    context: typer.Context,
    to: Annotated[str | None, typer.Option("--to", help=_PLACE)] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Then remove older ones: 7d,4w,12m keeps one a day, week and month.")
    ] = None,
) -> None:
    """Back up the database with pg_dump, under the migration lock, and write a manifest beside the dump."""
    if context.invoked_subcommand is not None:
        return
    if to is None:
        raise ConfigurationError("Where to is missing.", solutions=["Give a place: db backup --to FOLDER"])
    rule = retention.parse(keep) if keep is not None else None
    where, _ = dump.create(to, report=_say)
    if rule is not None:
        place, name = storage.locate(where)
        assert name is not None
        for removed in retention.thin_out(place, name, rule):
            _say(f"Removed {removed}: {keep} does not keep it")


@app.command("verify")
def verify(backup: Newest) -> None:
    """Read a backup in full, restore it into a scratch server, and compare rows and schema revision."""
    outcome = verifying.verify(backup, report=_say)
    for remark in outcome.remarks:
        _say(remark)
    if not outcome.complete:
        raise BackupError(
            f"{outcome.backup.text} is intact, and was not verified to the end: this machine lacks "
            f"{', '.join(outcome.missing)}.",
            solutions=["Verify where a PostgreSQL with these is installed; it need not run."],
        )
    if outcome.backup.manifest is not None:
        _say(f"Verified: {outcome.backup.text} restores into {outcome.with_what}, and is what its manifest says")


def backups(
    place: Annotated[str, typer.Argument(help=_PLACE)],
    as_json: Annotated[bool, typer.Option("--json", help="Print an array.")] = False,
) -> None:
    """List the backups of a place, and what is not a whole one."""
    found = retention.look(storage.locate(place)[0])
    if as_json:
        objects = [
            {
                "name": one.name,
                "size": one.size,
                "problem": one.problem,
                "manifest": one.manifest and asdict(one.manifest),
            }
            for one in found
        ]
        print(json.dumps(objects, indent=2))  # noqa: T201
        return
    table = Table()
    for column in ("Name", "Size", "Rows", "Verified"):
        table.add_column(column, no_wrap=column != "Verified", overflow="fold")
    for one in found:
        if (known := one.manifest) is None:
            table.add_row(escape(one.name), readable(one.size), "", f"[red]{escape(one.problem or '')}[/red]")
            continue
        verified = f"[green]{known.verified_at[:10]}[/green]" if known.verified_at else "no"
        table.add_row(escape(one.name), readable(one.size), str(sum(known.tables.values())), verified)
    if found:
        Console().print(table)
    else:
        _say(f"There is no backup in {place}")


def restore(
    backup: Backup,
    yes_i_mean: Annotated[
        str | None, typer.Option("--yes-i-mean", help="The database's name: replace what is in it without asking.")
    ] = None,
    safety_to: Annotated[
        str | None,
        typer.Option("--safety-to", help="Where what is there is backed up before; by default beside the dump."),
    ] = None,
) -> None:
    """Restore a backup into DATABASE_URL's database: an empty one, or with consent in place of what is there."""

    def consent(database: str) -> bool:
        if yes_i_mean is not None:
            if yes_i_mean != database:
                raise Refused(f"DATABASE_URL names the database {database}, not {yes_i_mean}.")
            return True
        if not sys.stdin.isatty():
            return False
        _say(f"Everything in the database {database} will be replaced; it is backed up first.")
        answer: str = typer.prompt("Type its name to go on")
        return answer == database

    restoring.restore(backup, consent=consent, safety_to=safety_to, report=_say)


def base_backup(to: To) -> None:
    """Copy a whole server of your own with pg_basebackup, the base of point-in-time recovery."""
    basebackup.create(to, report=_say)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201

"""`db migrate`: apply, look at, create, take back and mend migrations."""

import json
import sys
from datetime import UTC
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from migrations import baseline as baselines
from migrations import create as creation
from migrations import guards, ledger, rebase, rehearsal, repair, runner, tag
from migrations.connection import session
from migrations.history import Status
from migrations.ledger import Entry
from ops import migrate_lint
from ops.backup import dump
from shared.errors import Refused
from shared.settings import ENVIRONMENTS, get_settings

app = typer.Typer(help="Apply what is pending; other commands look, write and mend.", invoke_without_command=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and change nothing.")]
Rehearse = Annotated[bool, typer.Option("--rehearse", help="Run what is pending, look what it locks, and roll back.")]
Force = Annotated[bool, typer.Option("--force", help="Migrate although MIGRATION_REQUIRE_FORCE is true.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where the database is ahead of this code.")]
Json = Annotated[bool, typer.Option("--json", help="Print an object.")]


@app.callback()
def apply(
    context: typer.Context,
    dry_run: DryRun = False,
    rehearse: Rehearse = False,
    force: Force = False,
    strict: Strict = False,
    pre_migration: Annotated[
        str | None, typer.Option(help="Back up to this place first, where something is pending.", show_default=False)
    ] = None,
) -> None:
    """Apply pending migrations, then add essential data that is missing. A second run changes nothing."""
    if context.invoked_subcommand is not None:
        return
    if rehearse:
        rehearsal.run(report=_say, force=force)
    elif dry_run:
        runner.dry_run(report=_say, strict=strict)
    else:
        if pre_migration is not None:
            dump.snapshot_before_migration(pre_migration, report=_say)
        runner.deploy(report=_say, force=force, strict=strict)


@app.command()
def status(as_json: Json = False) -> None:
    """Show what is applied, by whom and when, what is pending, and what does not fit."""
    found = runner.status()
    if as_json:
        _say(json.dumps(as_object(found), indent=2))
        return
    problems = {problem.revision: problem for problem in found.problems}
    table = Table("State", "Applied")
    table.add_column("Migration", no_wrap=True)
    for migration in found.applied:
        problem = problems.get(migration.revision)
        state = f"[red]{problem.kind}[/red]" if problem else "[green]applied[/green]"
        table.add_row(state, _how(found.ledger.get(migration.revision)), migration.name)
    for migration in found.pending:
        entry = found.ledger.get(migration.revision)
        state = "[yellow]pending[/yellow]" if entry is None else "[red]partly applied[/red]"
        table.add_row(state, _how(entry), migration.name)
    Console().print(table)
    for problem in found.problems:
        _say(f"{problem}.")
    _say(
        {
            "equal": "The database is up to date.",
            "behind": f"{len(found.pending)} pending: db migrate applies them.",
            "ahead": f"The database is at {found.current}, ahead of this code.",
        }[found.state]
    )
    _say(f"Its environment is {found.environment}." if found.environment else "It carries no environment tag yet.")


app.command("lint")(migrate_lint.run)


@app.command()
def create(name: Annotated[str, typer.Argument(help="What it does, such as add_users_phone.")]) -> None:
    """Write an empty migration that follows the newest one."""
    path = creation.create(name)
    _say(f"Wrote {path}")


@app.command()
def down(
    to: Annotated[
        str | None, typer.Option(help="Revision or file to go back to, or `base`; by default one back.")
    ] = None,
    force: Force = False,
) -> None:
    """Take back the newest migration, or all that came after another one. What they hold is lost."""
    runner.downgrade(to, report=_say, force=force)


@app.command("baseline")
def adopt(
    revision: Annotated[
        str | None, typer.Argument(help="Timestamp or file that the database is at; the newest by default.")
    ] = None,
) -> None:
    """Adopt a database whose tables were made by other means: record its revision and run nothing."""
    baselines.baseline(revision, report=_say)


@app.command("repair")
def accept(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Accept files that were edited, removed or merged late, knowingly: the ledger is changed, nothing is run."""
    problems = repair.look()
    if not problems:
        _say("Nothing to repair")
        return
    for line in repair.explain(problems):
        _say(line)
    if get_settings().migration_dryrun:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise Refused("Nobody is there to confirm it.", solutions=["Insist: db migrate repair --yes"])
        if typer.prompt("Type repair to accept this") != "repair":
            raise typer.Abort
    repair.repair(problems, report=_say)


@app.command("rebase")
def put_behind(file: Annotated[str, typer.Argument(help="A migration file that is not applied yet.")]) -> None:
    """Put a migration behind all others: what mends two heads, and a file that was merged late."""
    rebase.rebase(file, report=_say)


@app.command("tag")
def tag_database(
    environment: Annotated[str | None, typer.Argument(help=f"One of {', '.join(ENVIRONMENTS)}.")] = None,
) -> None:
    """Show which environment the database belongs to, or change it."""
    if environment is None:
        with session() as connection:
            _say(tag.read(connection) or "none")
        return
    if environment not in ENVIRONMENTS:
        raise typer.BadParameter(f"Allowed: {', '.join(ENVIRONMENTS)}.")
    if get_settings().migration_dryrun:
        _say(f"Would tag the database {environment}")
        return
    with guards.guarded(report=_say) as connection:
        ledger.prepare(connection)
        tag.write(connection, environment)
    _say(f"The database is tagged {environment}")


def _how(entry: Entry | None) -> str:
    """Say when a revision was applied, in which time, by whom and from where."""
    if entry is None:
        return ""
    if entry.applied_at is None:
        first = f"{entry.statements_done} statements done"
    else:
        took = "" if entry.duration_ms is None else f" in {entry.duration_ms} ms"
        first = f"{entry.applied_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC{took}"
    return escape(f"{first} by {entry.applied_by}, {entry.applied_from}")


def as_object(found: Status) -> dict[str, object]:
    """Give the status as `--json` prints it."""

    def of(revision: str, name: str) -> dict[str, object]:
        entry = found.ledger.get(revision)
        if entry is None:
            return {"name": name}
        return {
            "name": name,
            "applied_at": entry.applied_at.astimezone(UTC).isoformat() if entry.applied_at else None,
            "applied_by": entry.applied_by,
            "applied_from": entry.applied_from,
            "duration_ms": entry.duration_ms,
            "statements_done": entry.statements_done,
        }

    return {
        "state": found.state,
        "current": found.current,
        "environment": found.environment,
        "applied": [of(file.revision, file.name) for file in found.applied],
        "pending": [of(file.revision, file.name) for file in found.pending],
        "problems": [{"kind": problem.kind, "name": problem.name} for problem in found.problems],
    }


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201

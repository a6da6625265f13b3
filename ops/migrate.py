"""`db migrate`: apply, look at, create and take back migrations."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from migrations import create as creation
from migrations import runner
from migrations.runner import Status

app = typer.Typer(help="Apply what is pending; `status`, `create` and `down` beside it.", invoke_without_command=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and change nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Migrate although MIGRATION_REQUIRE_FORCE is true.")]


@app.callback()
def apply(context: typer.Context, dry_run: DryRun = False, force: Force = False) -> None:
    """Apply pending migrations, then add essential data that is missing. A second run changes nothing."""
    if context.invoked_subcommand is not None:
        return
    if dry_run:
        runner.dry_run(report=_say)
    else:
        runner.deploy(report=_say, force=force)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False) -> None:
    """Show what is applied and what is pending."""
    found = runner.status()
    if as_json:
        _say(json.dumps(_as_object(found), indent=2))
        return
    table = Table("Migration", "State")
    for migration in found.applied:
        table.add_row(migration.name, "[green]applied[/green]")
    for migration in found.pending:
        table.add_row(migration.name, "[yellow]pending[/yellow]")
    Console().print(table)
    _say(
        {
            "equal": "The database is up to date.",
            "behind": f"{len(found.pending)} pending: db migrate applies them.",
            "ahead": f"The database is at {found.current}, ahead of this code.",
        }[found.state]
    )


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


def _as_object(found: Status) -> dict[str, object]:
    return {
        "state": found.state,
        "current": found.current,
        "applied": [migration.name for migration in found.applied],
        "pending": [migration.name for migration in found.pending],
    }


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201

"""The operator's command line, `db`. Each command lives in the module of its topic; this one joins them.

Exit codes are those of shared.errors, documented in docs/DATABASE.md.
"""

import json
import logging
import os
import sys
from typing import Annotated

import typer
from dotenv import load_dotenv
from rich.console import Console
from rich.markup import escape

from migrations import sigterm
from ops import aws_sdk, dev, embedded, explain, health, migrate, pool, roles, rotate, secret, shell, watch
from ops.audit import command as audit
from ops.backup import command as backup
from ops.doctor import command as doctor
from shared import __version__
from shared.db.credentials import asks_aws
from shared.errors import DatabaseError, DatabaseUnavailable, Error, LocalEnvironmentError
from shared.log import masked
from shared.settings import get_settings

cli = typer.Typer(
    name="db",
    help="Look after the PostgreSQL database of this function bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.add_typer(backup.app, name="backup")
cli.add_typer(migrate.app, name="migrate")
cli.add_typer(embedded.app, name="postgres")
cli.command("audit")(audit.run)
cli.command("backups")(backup.backups)
cli.command("basebackup")(backup.base_backup)
cli.command("dev")(dev.run)
cli.command("doctor")(doctor.run)
cli.command("explain")(explain.run)
cli.command("health")(health.run)
cli.command("pool")(pool.run)
cli.command("restore")(backup.restore)
cli.command("roles")(roles.run)
cli.command("rotate")(rotate.run)
cli.command("secret")(secret.run)
cli.command("shell", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(shell.run)
cli.command("watch")(watch.run)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)  # noqa: T201
        raise typer.Exit


@cli.callback()
def prepare(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Read .env, get boto3 where AWS keeps the password, and find the embedded database where nothing names one."""
    load_dotenv(".env")
    if asks_aws(os.environ):
        aws_sdk.module("boto3")
    embedded.use_if_running()


@cli.command("url")
def url(
    show_password: Annotated[bool, typer.Option("--show-password", help="Print it in full.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
) -> None:
    """Print the connection string that commands use, its password masked."""
    settings = get_settings()
    text = settings.database_url.render(password=show_password)
    if as_json:
        text = json.dumps({"url": text, "environment": settings.environment})
    print(text)  # noqa: T201


def main() -> None:
    """Run a command; every error of ours ends in a sentence, what to do, and its own exit code.

    Typer itself exits with 2 where it cannot read the command line, and with 130 after Ctrl-C and SIGTERM.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        with sigterm.interrupts():
            cli()
    except Error as error:
        report(error)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        report(LocalEnvironmentError(f"{error.strerror or error}{where}."))
        sys.exit(LocalEnvironmentError.exit_code)
    except Exception as error:
        if "DB_TRACEBACK" in os.environ:
            raise
        unexpected = Error(
            f"Unexpected, so a defect of this command: {type(error).__name__}: {masked(str(error))}",
            solutions=["DB_TRACEBACK=1 in the environment shows where; it may show data too."],
        )
        report(unexpected)
        sys.exit(unexpected.exit_code)


def report(error: Error) -> None:
    """Print an error of ours to standard error."""
    sqlstate = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    _say(f"[bold red]Error:[/bold red] {escape(error.message)}{sqlstate}")
    solutions = error.solutions
    if isinstance(error, DatabaseUnavailable | DatabaseError):
        from shared.db.diagnosis import explain

        found = explain(error, probe=isinstance(error, DatabaseUnavailable))
        _say(f"[bold]Cause:[/bold] {escape(found.cause)} ({found.code})")
        solutions = tuple(dict.fromkeys((*found.solutions, *solutions)))
    for solution in solutions:
        _say(f"  - {escape(solution)}")


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(text)  # an ARN has :secret: in it

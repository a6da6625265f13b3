"""Alembic's entry: every command that meets a database comes through here, stock or ours, and so through the guards.

The runner puts `progress` and `contention` into the configuration's attributes when it has passed the guards itself and
holds the lock (engine.py).
"""

import logging
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from alembic import context
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from migrations import failure, files, guards, history, ledger, tag
from migrations.comparison import include_name
from migrations.connection import Connection, connect, lift_transaction_timeout
from migrations.files import File
from migrations.progress import Progress
from migrations.rendering import VerbatimImpl
from shared.errors import Error, Refused
from shared.settings import get_settings

__all__ = ["VerbatimImpl"]  # importing it makes Alembic use it

config = context.config
log = logging.getLogger("alembic.runtime.migration")  # where Alembic says what it runs
called_by_runner = "contention" in config.attributes
if not called_by_runner:
    config.attributes["progress"] = Progress(lambda _: None, "")


def open_for_sqlalchemy() -> Any:
    """Open a driver connection as SQLAlchemy expects it: outside autocommit."""
    connection = connect()
    lift_transaction_timeout(connection)
    connection.autocommit = False
    return connection


def target_metadata() -> Any:
    """Give what commands compare the database with; applying compares nothing, and does not load it."""
    if called_by_runner:
        return None
    from shared.db.schema import metadata

    return metadata


@cache
def script_files() -> dict[str, File]:
    """Give the migration files that Alembic has loaded, by revision."""
    return {file.revision: file for file in files.scan(Path(context.script.versions))}


def run_offline() -> None:
    """Write SQL instead of running it (`--sql`); needs no database."""
    context.configure(dialect_name="postgresql", target_metadata=target_metadata(), transaction_per_migration=True)
    context.run_migrations()


def run_online() -> None:
    """Run the command against the database in DATABASE_URL."""
    progress: Progress = config.attributes["progress"]
    engine = create_engine("postgresql+psycopg://", creator=open_for_sqlalchemy, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            context.configure(
                connection=connection,
                target_metadata=target_metadata(),
                include_name=include_name,
                compare_type=True,
                compare_server_default=True,
                transaction_per_migration=True,
                on_version_apply=keep_ledger,
            )
            only_looks = "destination_rev" not in context.get_context().opts  # current, check, revision
            if called_by_runner or only_looks:
                context.run_migrations()
            else:
                run_stock_command()
    except (SQLAlchemyError, psycopg.Error) as error:  # the ledger is written past SQLAlchemy
        raise progress.failure or failure.at_commit(progress.current, error) from None


def keep_ledger(ctx: Any, step: MigrationInfo, heads: Collection[Any], run_args: object) -> None:  # noqa: ARG001
    """Keep the ledger in step with alembic_version, in the transaction that changes it: Alembic's on_version_apply."""
    connection: Connection = ctx.connection.connection.driver_connection
    if step.is_stamp:  # which may move over many revisions at once
        head = max(heads, default="")
        ledger.replace(connection, [file for revision, file in script_files().items() if revision <= head])
    elif step.is_upgrade:
        progress: Progress = config.attributes["progress"]
        ledger.record(connection, script_files()[str(step.up_revision_id)], duration_ms=progress.elapsed_ms)
    else:
        ledger.forget(connection, str(step.up_revision_id))


def run_stock_command() -> None:
    """Pass the guards, then run upgrade, downgrade or stamp as `alembic` was asked to."""
    settings = get_settings()
    if settings.migration_dryrun:
        raise Refused(
            "MIGRATION_DRYRUN is true, and stock Alembic has no dry run.",
            solutions=["See what would run: db migrate --dry-run, or alembic upgrade head --sql"],
        )
    with guards.guarded(report=log.info) as guard:
        status = history.read(guard, tuple(script_files().values()))
        settings = tag.in_force(settings, status.environment)
        guards.check_allowed(settings)
        if not isinstance(context.get_context().opts["destination_rev"], tuple):  # as it is for stamp, which mends
            history.check(status)
        ledger.prepare(guard)
        if status.environment is None:
            tag.write(guard, settings.environment)
        context.run_migrations()


def run() -> None:
    """Run online or offline; say a stock command's errors in Alembic's way, without a traceback."""
    if config.cmd_opts is not None:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
    if called_by_runner:
        run_online()
        return
    try:
        files.chain()
        if context.is_offline_mode():
            run_offline()
        else:
            run_online()
    except Error as error:
        raise CommandError(failure.describe(error)) from None
    except KeyboardInterrupt:
        # As a shell reports an interrupted command; the server rolls back what was under way.
        raise SystemExit(130) from None


run()

"""Alembic's entry: every command that meets a database comes through here, stock or ours, and so through the guards.

The runner puts `progress` into the configuration's attributes when it has passed the guards itself and holds the lock.
"""

import logging
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from migrations import failure, files, guards, lock
from migrations.connection import connect
from migrations.progress import Progress
from migrations.rendering import VerbatimImpl
from shared.db.schema import metadata
from shared.errors import Error, Refused
from shared.settings import get_settings

__all__ = ["VerbatimImpl"]  # importing it makes Alembic use it

config = context.config
log = logging.getLogger("alembic.runtime.migration")  # where Alembic says what it runs
called_by_runner = "progress" in config.attributes


def open_for_sqlalchemy() -> Any:
    """Open a driver connection as SQLAlchemy expects it: outside autocommit."""
    connection = connect()
    connection.autocommit = False
    return connection


def run_offline() -> None:
    """Write SQL instead of running it (`--sql`); needs no database."""
    context.configure(dialect_name="postgresql", target_metadata=metadata, transaction_per_migration=True)
    context.run_migrations()


def run_online() -> None:
    """Run the command against the database in DATABASE_URL."""
    progress: Progress = config.attributes.setdefault("progress", Progress(lambda _: None, ""))
    engine = create_engine("postgresql+psycopg://", creator=open_for_sqlalchemy, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            context.configure(
                connection=connection,
                target_metadata=metadata,
                compare_type=True,
                compare_server_default=True,
                transaction_per_migration=True,
            )
            only_looks = "destination_rev" not in context.get_context().opts  # current, check, revision
            if called_by_runner or only_looks:
                context.run_migrations()
            else:
                run_stock_command()
    except SQLAlchemyError as error:
        raise progress.failure or failure.at_commit(progress.current, error) from None


def run_stock_command() -> None:
    """Pass the guards, then run upgrade, downgrade or stamp as `alembic` was asked to."""
    settings = get_settings()
    guards.check_allowed(settings)
    if settings.migration_dryrun:
        raise Refused(
            "MIGRATION_DRYRUN is true, and stock Alembic has no dry run.",
            solutions=["See what would run: db migrate --dry-run, or alembic upgrade head --sql"],
        )
    with guards.guarded(lock_wait=lock.WAIT, report=log.info):
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

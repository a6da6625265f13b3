"""Run revisions with Alembic, and again where somebody else's lock was in the way.

What revision.py and env.py find in the configuration's attributes: `progress`, and `contention`, without which (as in
stock Alembic commands) nothing is tried again.
"""

from pathlib import Path
from typing import Literal

from alembic import command as commands
from alembic.config import Config
from alembic.util import CommandError

from migrations import failure, lock
from migrations.connection import Connection
from migrations.contention import RETRYABLE, Contention
from migrations.progress import Progress, Report
from migrations.watcher import Watcher
from shared.errors import MigrationError
from shared.settings import get_settings


def run(
    command: Literal["upgrade", "downgrade"],
    target: str,
    directory: Path,
    *,
    guard: Connection,
    progress: Progress,
    report: Report,
    wait: float = lock.WAIT,
) -> None:
    """Bring the database to `target`. `guard` is the autocommit connection that holds the migration lock.

    Waits for other people's locks up to `wait` seconds in all. Raises MigrationError, LockTimeout naming who blocked,
    and HistoryMismatch.
    """
    lock_timeout = get_settings().migration_lock_timeout
    interval = min(0.5, lock_timeout / 5)
    contention = Contention(guard, report, wait=wait, lock_timeout=lock_timeout, interval=interval)
    config = _config(directory, progress, contention)
    try:
        with Watcher(guard, progress, contention, report, interval=interval):
            contention.await_dumps()
            while True:
                try:
                    getattr(commands, command)(config, target)
                    break
                except CommandError as error:
                    raise MigrationError(str(error)) from error
                except MigrationError as error:
                    if error.sqlstate not in RETRYABLE:
                        raise
                    progress.step_back()
                    contention.pause(error)
                    contention.await_dumps()
    except KeyboardInterrupt:
        if progress.current is not None:
            state = (
                failure.AT_ITS_END
                if progress.is_ending
                else failure.state_after(progress.current, progress.statements_done, progress.statement)
            )
            report(f"Interrupted in {progress.current.name}. {state}")
        raise
    progress.finish()


def _config(directory: Path, progress: Progress, contention: Contention) -> Config:
    config = Config(attributes={"progress": progress, "contention": contention})
    # Values of this file format are interpolated: % is written %%.
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("version_locations", str(directory).replace("%", "%%"))
    return config

"""Adopt a database whose tables were made by other means: record its revision, and run nothing."""

from pathlib import Path

from migrations import files, guards, history, ledger, tag
from migrations.connection import Connection
from migrations.files import VERSIONS
from migrations.progress import Report
from shared.errors import MigrationError, Refused
from shared.settings import get_settings

# As Alembic makes it.
_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)
"""
_COLUMNS = (
    "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema()"
)


def baseline(revision: str | None = None, *, report: Report, directory: Path = VERSIONS) -> None:
    """Record that the database is at a revision, by default the newest: a timestamp or a file's name.

    Raises Refused where Alembic knows the database already, and where a table or column that this code needs at the
    newest revision is not there.
    """
    found = files.scan(directory)
    wanted = (revision or (found[-1].revision if found else "")).removesuffix(".sql")
    applied = next(
        (found[: n + 1] for n, file in enumerate(found) if wanted in (file.revision, file.path.stem)),
        None,
    )
    if applied is None:
        raise MigrationError(
            f"{wanted or 'The newest'} is not a migration here.", solutions=["Give a file's timestamp or its name."]
        )
    with guards.guarded(report=report) as connection:
        status = history.read(connection, found)
        settings = tag.in_force(get_settings(), status.environment)
        if status.current is not None:
            raise Refused(
                f"The database is at the revision {status.current} already: it needs no baseline.",
                solutions=["See where it stands: db migrate status"],
            )
        if len(applied) == len(found):
            _check_complete(connection)
        if settings.migration_dryrun:
            report(f"Would record that {applied[-1].name} and those before it are applied")
            return
        ledger.prepare(connection)
        with connection.transaction():
            connection.execute(_VERSION_TABLE)
            connection.execute("INSERT INTO alembic_version VALUES (%s)", [applied[-1].revision])
            ledger.replace(connection, applied)
            tag.write(connection, settings.environment)
    report(f"Recorded {applied[-1].name} and those before it as applied. What is still pending: db migrate")


def _check_complete(connection: Connection) -> None:
    from shared.db.schema import metadata  # SQLAlchemy

    there = {str(row[0]) for row in connection.execute(_COLUMNS).fetchall()}
    lacking = []
    for table in metadata.sorted_tables:
        columns = [column.name for column in table.columns if f"{table.name}.{column.name}" not in there]
        if len(columns) == len(table.columns):
            lacking.append(f"the table {table.name}")
        else:
            lacking += [f"the column {table.name}.{column}" for column in columns]
    if lacking:
        raise Refused(
            f"The database is not at the newest revision, for it lacks {', '.join(lacking)}.",
            solutions=[
                "Name the revision that it is at: db migrate baseline REVISION",
                "An empty database needs no baseline: db migrate",
            ],
        )

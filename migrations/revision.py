"""What the .py file beside each migration loads: the form in which Alembic knows a revision.

`load` reads the .sql file of the same name. Its statements run one by one as they stand: Alembic's own op.execute would
take `:name` for a parameter, and the driver `%I`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

from alembic import op
from alembic.util import CommandError

from migrations import execution, failure, files
from migrations.connection import Connection
from migrations.contention import Contention
from migrations.files import Migration, Part
from migrations.progress import Progress
from shared.errors import MigrationError

Body = Callable[[], None]


def load(loader: str) -> tuple[str, str, str | None, Body, Body]:
    """Give docstring, revision, parent, upgrade and downgrade of the .sql file beside this .py file."""
    try:
        migration = files.parse(Path(loader).with_suffix(".sql"))
    except MigrationError as error:
        raise CommandError(failure.describe(error)) from None

    def upgrade() -> None:
        _run(migration, migration.up)

    def downgrade() -> None:
        migration.check_reversible()
        _run(migration, migration.down)

    return migration.description, migration.revision, migration.parent, upgrade, downgrade


def _run(migration: Migration, part: Part) -> None:
    context = op.get_context()
    block: AbstractContextManager[None] = nullcontext() if migration.transactional else context.autocommit_block()
    if context.as_sql:
        with block:
            context.impl.static_output(part.text.strip())
        return
    assert context.config is not None
    progress: Progress = context.config.attributes["progress"]
    contention: Contention | None = context.config.attributes.get("contention")
    with block:
        # In such a block the context has another connection than outside of it.
        assert context.connection is not None
        connection = cast(Connection, context.connection.connection.driver_connection)
        execution.run(connection, migration, part, progress=progress, contention=contention)

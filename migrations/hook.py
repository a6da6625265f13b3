"""Alembic's post-write hook: turn what `alembic revision` generated into a migration file.

`python -m migrations.hook FILE` renders the operations of the generated .py as SQL into the .sql file beside it, then
replaces the .py by the one that every migration has.
"""

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from migrations import create, files, head
from migrations.failure import describe
from shared.errors import Error, MigrationError


def convert(path: Path) -> None:
    """Convert one generated file. Raises MigrationError where the result would not be a migration."""
    generated = path.read_text("utf-8")
    module = _load(path)
    sql = path.with_suffix(".sql")
    create.write(
        sql,
        parent=module.down_revision,
        description=module.message,
        up=_render(module, "upgrade"),
        down=_render(module, "downgrade"),
    )
    try:
        files.chain(path.parent)
    except MigrationError as error:
        sql.unlink()
        path.write_text(generated, "utf-8")
        raise MigrationError(
            error.message,
            solutions=[f"Delete {path.name}, and give a message in plain letters: alembic revision -m 'add phone'"],
        ) from None
    if path.parent == files.VERSIONS:
        head.write()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _render(module: ModuleType, function: str) -> str:
    buffer = io.StringIO()
    # With named parameters: the default dialect would double every %.
    context = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "output_buffer": buffer},
    )
    with Operations.context(context):
        getattr(module, function)()
    return buffer.getvalue().strip()


def main() -> int:
    """Convert the file named on the command line; gives the exit code."""
    try:
        convert(Path(sys.argv[1]))
    except Error as error:
        print(f"Error: {describe(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

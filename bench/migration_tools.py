"""The tools that bench/migrations.py compares: for each a folder with the same revisions, as its users keep it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from migrations.files import LOADER
from tests.deploy import tools

DEPLOY = "deploy"
ALEMBIC = "Alembic"
DRIZZLE_KIT = "drizzle-kit"
NODE_PG_MIGRATE = "node-pg-migrate"

_MANIFEST = Path(__file__).parent / "node_migrations" / "package.json"
# Would change where a tool connects, or how fast Node starts.
_CLEARED = ("DATABASE_", "POSTGRES_", "DIRECT_URL", "MIGRATION_", "PG", "NODE_", "VERCEL", "AWS_", "APP_ENV")

_SQL = "CREATE TABLE t{n} (id bigint PRIMARY KEY, name text NOT NULL)"
_OURS = "-- Create t{n}: something to migrate.\n-- parent: {parent}\n\n{sql};\n\n-- down\n\nDROP TABLE t{n};\n"
_ALEMBIC = """\
from alembic import op

revision = "{revision}"
down_revision = {parent!r}


def upgrade():
    op.execute("{sql}")


def downgrade():
    op.execute("DROP TABLE t{n}")
"""
_ALEMBIC_ENV = """\
import os

from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""  # noqa: E501
_DRIZZLE_CONFIG = """\
import { defineConfig } from 'drizzle-kit'

export default defineConfig({
  dialect: 'postgresql',
  schema: './schema.ts',
  out: './drizzle',
  dbCredentials: { url: process.env.DATABASE_URL! },
})
"""
_NODE_PG_MIGRATE = "-- Up Migration\n{sql};\n\n-- Down Migration\nDROP TABLE t{n};\n"


class Cost(NamedTuple):
    """What one process cost, in milliseconds; the CPU is user and system, with its children's."""

    cpu: float
    wall: float


class Tool:
    """A folder with revisions, and the command that applies them."""

    def __init__(self, name: str, folder: Path, command: Sequence[str]) -> None:
        self.name = name
        self.folder = folder
        self.command = command

    def run(self, url: str) -> Cost:
        """Run it on this database. Raises RuntimeError with what it says where it fails."""
        # Without PYTHONDONTWRITEBYTECODE: Python's tools run from compiled files after the first turn.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        output = self.folder / "output.txt"
        with output.open("wb") as file:
            begun = time.perf_counter()
            process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**kept, "DATABASE_URL": url, "APP_ENV": "test"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{self.name} failed:\n{output.read_text('utf-8', 'replace')}")
        return Cost(1000 * (used.ru_utime + used.ru_stime), 1000 * wall)


def make(folder: Path, number: int) -> list[Tool]:
    """Make a folder with so many revisions for each tool; those of Node are missing where this machine has none."""
    made = [ours(folder / "ours", number), alembic(folder / "alembic", number)]
    try:
        packages = tools.npm_packages("node-migrations", _MANIFEST) / "node_modules"
    except tools.Missing as missing:
        print(f"Without {DRIZZLE_KIT} and {NODE_PG_MIGRATE}: {missing}", file=sys.stderr)
        return made
    for make_one in (drizzle_kit, node_pg_migrate):
        made.append(_in_node(make_one, folder, number, packages))
    return made


def ours(folder: Path, number: int) -> Tool:
    """Copy what ships, with other revisions and without the sample tables, which no essential data is for then."""
    for room in ("migrations", "shared"):
        shutil.copytree(tools.ROOT / room, folder / room, ignore=shutil.ignore_patterns("versions", "__pycache__"))
    (folder / "shared/db/schema_head.py").write_text('REVISION = ""\nTABLES = ()\n')
    versions = folder / "migrations" / "versions"
    versions.mkdir()
    parent = "none"
    for n in range(number):
        revision = _revision(n)
        (versions / f"{revision}_t{n}.sql").write_text(_OURS.format(n=n, parent=parent, sql=_SQL.format(n=n)))
        (versions / f"{revision}_t{n}.py").write_text(LOADER)
        parent = revision
    return Tool(DEPLOY, folder, [sys.executable, "-m", "migrations", "deploy"])


def alembic(folder: Path, number: int) -> Tool:
    """Write what `alembic init` would, as far as it is needed."""
    versions = folder / "scripts" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/scripts\npath_separator = os\n")
    (folder / "scripts" / "env.py").write_text(_ALEMBIC_ENV)
    parent = None
    for n in range(number):
        revision, sql = _revision(n), _SQL.format(n=n)
        (versions / f"{revision}_t{n}.py").write_text(_ALEMBIC.format(n=n, revision=revision, parent=parent, sql=sql))
        parent = revision
    return Tool(ALEMBIC, folder, [sys.executable, "-m", "alembic", "upgrade", "head"])


def drizzle_kit(folder: Path, number: int) -> Tool:
    """Write what `drizzle-kit generate` would, but the snapshots of the schema, which `migrate` does not read."""
    meta = folder / "drizzle" / "meta"
    meta.mkdir(parents=True)
    (folder / "drizzle.config.ts").write_text(_DRIZZLE_CONFIG)
    (folder / "schema.ts").write_text("export {}\n")
    entries = []
    for n in range(number):
        tag = f"{n:04}_t{n}"
        (folder / "drizzle" / f"{tag}.sql").write_text(_SQL.format(n=n) + ";\n")
        entries.append({"idx": n, "version": "7", "when": 1767225600000 + 1000 * n, "tag": tag, "breakpoints": True})
    (meta / "_journal.json").write_text(json.dumps({"version": "7", "dialect": "postgresql", "entries": entries}))
    return Tool(DRIZZLE_KIT, folder, ["node_modules/.bin/drizzle-kit", "migrate"])


def node_pg_migrate(folder: Path, number: int) -> Tool:
    """Write the SQL files that `node-pg-migrate create` would."""
    (folder / "migrations").mkdir(parents=True)
    for n in range(number):
        file = folder / "migrations" / f"{1767225600000 + 1000 * n}_t{n}.sql"
        file.write_text(_NODE_PG_MIGRATE.format(n=n, sql=_SQL.format(n=n)))
    return Tool(NODE_PG_MIGRATE, folder, ["node_modules/.bin/node-pg-migrate", "up"])


def _in_node(make_one: Callable[[Path, int], Tool], folder: Path, number: int, packages: Path) -> Tool:
    tool = make_one(folder / make_one.__name__, number)
    shutil.copy(_MANIFEST, tool.folder)
    (tool.folder / "node_modules").symlink_to(packages)
    return tool


def _revision(n: int) -> str:
    return f"20260101{n // 3600:02}{n // 60 % 60:02}{n % 60:02}"

"""A deploy beside `alembic upgrade head`: with nothing pending, and the first one of 20 small revisions.

    make bench

Whole processes, in turns, each pair over folders of the same revisions and databases of one server. Prints the medians
of their CPU (user and system, of the process alone) and of the time on the clock, and the median of the ratio in each
turn. The peer is a plain Alembic folder: its revisions hold the same SQL, its env.py connects and runs them.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psycopg
from rich.console import Console
from rich.table import Table

from bench.reads import server
from migrations.files import LOADER

TURNS = 11
FIRST_RUN = 20  # revisions
ROOT = Path(__file__).parent.parent

_SQL = "CREATE TABLE t{n} (id bigint PRIMARY KEY, name text NOT NULL)"
_OURS = "-- Create t{n}: something to migrate.\n-- parent: {parent}\n\n{sql};\n\n-- down\n\nDROP TABLE t{n};\n"
_THEIRS = """\
from alembic import op

revision = "{revision}"
down_revision = {parent!r}


def upgrade():
    op.execute("{sql}")


def downgrade():
    op.execute("DROP TABLE t{n}")
"""
_ENV = """\
import os

from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""  # noqa: E501


class Cost(NamedTuple):
    """What one process cost, in milliseconds."""

    cpu: float
    wall: float


class Side:
    """One of the two: a folder with revisions, and the command that applies them."""

    def __init__(self, name: str, folder: Path, command: list[str]) -> None:
        self.name = name
        self.folder = folder
        self.command = command

    def run(self, url: str) -> Cost:
        """Run it on this database."""
        environ = {**os.environ, "DATABASE_URL": url, "APP_ENV": "test"}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # both sides run from compiled files after the first turn
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", *self.command], cwd=self.folder, env=environ, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{self.name} failed")
        return Cost(1000 * (used.ru_utime + used.ru_stime), 1000 * wall)


def main() -> None:
    """Measure, and print a table."""
    table = Table(
        title=f"A deploy and `alembic upgrade head`, ms, PostgreSQL on loopback, Python {sys.version.split()[0]}"
    )
    for heading in ("", "CPU, deploy", "CPU, Alembic", "ratio", "clock, deploy", "clock, Alembic", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        for number in (10, 1000):
            table.add_row(f"nothing pending, {number} revisions", *compare(Path(folder), url, number, first=False))
        table.add_row(f"first run of {FIRST_RUN}", *compare(Path(folder), url, FIRST_RUN, first=True))
    Console(width=120).print(table)


def compare(folder: Path, url: str, number: int, *, first: bool) -> list[str]:
    """Give the cells of a row: medians of both, and of the ratio in each turn."""
    sides = (ours(folder / f"ours-{number}", number), theirs(folder / f"theirs-{number}", number))
    turns = []
    for turn in range(TURNS + 1):
        costs = []
        for side in sides:
            database = f"{side.name}_{number}".lower()
            if first or turn == 0:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"DROP DATABASE IF EXISTS {database}")
                    connection.execute(f"CREATE DATABASE {database}")
            costs.append(side.run(f"{url.rpartition('/')[0]}/{database}"))
        if turn:  # the first one compiles, and where nothing is to be pending, applies
            turns.append(costs)
    cells = []
    for kind in (0, 1):
        deploy, alembic = ([turn[side][kind] for turn in turns] for side in (0, 1))
        ratio = statistics.median(a / b for a, b in zip(deploy, alembic, strict=True))
        cells += [f"{statistics.median(deploy):.0f}", f"{statistics.median(alembic):.0f}", f"{ratio:.2f}"]
    return cells


def ours(folder: Path, number: int) -> Side:
    """Copy what ships, with other revisions and without the sample tables, which no essential data is for then."""
    for room in ("migrations", "shared"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("versions", "__pycache__"))
    (folder / "shared/db/schema_head.py").write_text('REVISION = ""\nTABLES = ()\n')
    versions = folder / "migrations" / "versions"
    versions.mkdir()
    parent = "none"
    for n in range(number):
        revision, sql = _revision(n), _SQL.format(n=n)
        (versions / f"{revision}_t{n}.sql").write_text(_OURS.format(n=n, parent=parent, sql=sql))
        (versions / f"{revision}_t{n}.py").write_text(LOADER)
        parent = revision
    return Side("deploy", folder, ["migrations", "deploy"])


def theirs(folder: Path, number: int) -> Side:
    """Write what `alembic init` would, as far as it is needed."""
    versions = folder / "scripts" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/scripts\npath_separator = os\n")
    (folder / "scripts" / "env.py").write_text(_ENV)
    parent = None
    for n in range(number):
        revision, sql = _revision(n), _SQL.format(n=n)
        (versions / f"{revision}_t{n}.py").write_text(_THEIRS.format(n=n, revision=revision, parent=parent, sql=sql))
        parent = revision
    return Side("alembic", folder, ["alembic", "upgrade", "head"])


def _revision(n: int) -> str:
    return f"20260101{n // 3600:02}{n // 60 % 60:02}{n % 60:02}"


if __name__ == "__main__":
    main()

"""The built function with the storms' endpoints in it, and the database that they read and write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.deploy import tools, vercel_build, vercel_instance
from tests.servers.postgres import Postgres

ENVIRONMENT = {"VERCEL_ENV": "production", "ADMIN_INITIAL_PASSWORD": "Correct-Horse-9-Battery"}
EMAIL, PASSWORD = "admin@example.com", ENVIRONMENT["ADMIN_INITIAL_PASSWORD"]
ITEMS = 1000
TEMPLATE = "storms_template"

_TABLES = f"""
CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, {ITEMS - 1}) AS n;
CREATE TABLE ledger (instance int NOT NULL, number int NOT NULL);
CREATE TABLE account (instance int PRIMARY KEY, entries int NOT NULL DEFAULT 0);
INSERT INTO account SELECT generate_series(0, 999);
"""


@dataclass(frozen=True)
class Function:
    """What was built, laid out as an instance finds it."""

    folder: Path
    python: Path
    environment: Mapping[str, str]

    def instance(self, **variables: str) -> AbstractContextManager[vercel_instance.Instance]:
        """Run an instance of it."""
        return vercel_instance.running(self.folder, self.python, self.environment, variables)


def build(server: Postgres, folder: Path) -> Function:
    """Build it, while its hook migrates the database TEMPLATE on this server; then add the tables there.

    Raises tools.Missing where this machine lacks what builds it.
    """
    server.create_database(TEMPLATE)
    project = vercel_build.copy_project(tools.ROOT, folder / "project")
    for file in (Path(__file__).parent / "endpoints").glob("[!_]*.py"):
        shutil.copy(file, project / "functions")
    built = vercel_build.build(project, {"DATABASE_URL": server.url(TEMPLATE), **ENVIRONMENT})
    assert built.code == 0, built.log
    built.function.copy_to(folder / "function")
    with psycopg.connect(server.url(TEMPLATE), autocommit=True) as connection:
        connection.execute(_TABLES)
    return Function(folder / "function", built.python, built.function.config["environment"])

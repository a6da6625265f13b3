"""The build hook: who gets migrated, and what a build does when that cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from shared.db.schema_head import REVISION
from tests.deploy.conftest import PASSWORD, RunBuild
from tests.deploy.vercel_build import Build
from tests.servers.postgres import APP_PASSWORD

pytestmark = pytest.mark.deploy


def revision(url: str) -> str | None:
    """Return the revision that a database is at, None where nothing was migrated."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
        if row == (None,):
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


def has_no_function(build: Build) -> bool:
    return not list(build.output.glob("functions/*"))


def test_a_production_build_migrates_its_database_between_installing_and_bundling(
    vercel_built: Build, vercel_database: str
) -> None:
    assert revision(vercel_database) == REVISION
    order = ["Installing required dependencies", "Executing: python -m migrations deploy", "Compiling Python bytecode"]
    assert [vercel_built.log.index(step) for step in order] == sorted(vercel_built.log.index(step) for step in order)
    assert PASSWORD not in vercel_built.log
    assert APP_PASSWORD not in vercel_built.log


def add_migration(project: Path, sql: str) -> None:
    """Add a migration as the newest."""
    versions = project / "migrations" / "versions"
    newest = max(versions.glob("*.sql"))
    text = f"-- Add one.\n-- parent: {newest.name.partition('_')[0]}\n\n{sql}\n\n-- down\n\nDROP TABLE added;\n"
    (versions / "29991231000000_add_one.sql").write_text(text, "utf-8")
    shutil.copy(newest.with_suffix(".py"), versions / "29991231000000_add_one.py")


def test_a_migration_that_fails_fails_the_build(vercel_build_of: RunBuild, deployed_database: str) -> None:
    def change(project: Path) -> None:
        add_migration(project, "CREATE TABLE added AS SELECT 1 / 0;")

    build = vercel_build_of(change, VERCEL_ENV="production", DATABASE_URL=deployed_database)
    assert build.code != 0
    assert has_no_function(build)
    assert "division by zero" in build.log
    assert revision(deployed_database) == REVISION
    assert APP_PASSWORD not in build.log


def test_a_build_without_a_database_says_what_to_set(vercel_build_of: RunBuild) -> None:
    build = vercel_build_of(VERCEL_ENV="production")
    assert build.code != 0
    assert has_no_function(build)
    assert "Error: DATABASE_URL is not set, and the environment is production." in build.log
    assert "Set it to postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require." in build.log


def test_a_preview_leaves_the_database_of_production_alone(vercel_build_of: RunBuild, deployed_database: str) -> None:
    """It is built all the same, since that is what a preview is for."""

    def change(project: Path) -> None:
        add_migration(project, "CREATE TABLE added (id bigint);")

    build = vercel_build_of(change, VERCEL_ENV="preview", DATABASE_URL=deployed_database)
    assert build.code == 0, build.log
    assert build.function.files
    assert "Applied" not in build.log
    assert "db migrate tag preview" in build.log
    assert revision(deployed_database) == REVISION

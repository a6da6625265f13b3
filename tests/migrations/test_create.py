"""Creating migrations, and the constants that say which schema the code was written for."""

from datetime import UTC, datetime, timedelta

import pytest

from migrations import files, head, runner
from migrations.create import create
from shared.db.schema import metadata
from shared.db.schema_head import REVISION, TABLES
from shared.errors import MigrationError
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project


def test_a_created_file_starts_with_the_comment_and_can_be_applied(url: str, folder: Folder, said: list[str]) -> None:
    before = datetime.now(UTC).strftime("%Y%m%d%H%M%S")

    first = create("Add Users-phone", directory=folder.path)
    second = create("second", directory=folder.path)

    assert first.name[14:] == "_add_users_phone.sql"
    assert before <= first.name[:14] <= second.name[:14]
    assert first.read_text().splitlines()[0] == "-- Add Users-phone: say here what changes and why."
    chain = files.chain(folder.path)
    assert [migration.parent for migration in chain] == [None, chain[0].revision]
    runner.deploy(report=said.append, directory=folder.path)
    assert catalog.revision(url) == chain[1].revision
    runner.downgrade("base", report=said.append, directory=folder.path)


def test_a_new_file_is_later_than_the_newest_whatever_the_clock_says(folder: Folder) -> None:
    future = (datetime.now(UTC) + timedelta(days=400)).strftime("%Y%m%d%H%M59")
    folder.add(f"{future}_a")

    created = [create("b", directory=folder.path), create("c", directory=folder.path)]

    assert future < created[0].name[:14] < created[1].name[:14]
    assert len(files.chain(folder.path)) == 3


@pytest.mark.parametrize("name", ["", "  ", "../x", "a/b", "1st", "größe", "a;b", "x" * 61, ".", "a\nb;"])
def test_a_bad_name_is_refused_and_nothing_is_written(folder: Folder, name: str) -> None:
    with pytest.raises(MigrationError, match="does not make a file name"):
        create(name, directory=folder.path)

    assert list(folder.path.iterdir()) == []


def test_nothing_is_created_behind_a_broken_chain(folder: Folder) -> None:
    folder.add("20260101000000_a", parent="20250101000000")

    with pytest.raises(MigrationError, match="names the parent 20250101000000"):
        create("b", directory=folder.path)

    assert len(list(folder.path.iterdir())) == 2


def test_the_constants_are_those_of_files_and_metadata() -> None:
    """Where this fails: `db migrate create`, or head.write()."""
    assert head.HEAD_FILE.read_text("utf-8") == head.render()
    assert files.chain()[-1].revision == REVISION
    assert list(metadata.tables) == list(TABLES)


def test_the_command_brings_the_constants_up_to_date(project: Project) -> None:
    with (project.path / "shared/db/schema.py").open("a") as schema:
        schema.write("Table('notes', metadata, _id())\n")

    done = project.db("migrate", "create", "add notes")

    assert done.returncode == 0, done.stderr
    path = files.chain(project.versions.path)[-1].path
    assert done.stdout.strip() == f"Wrote {path}"
    assert path.name.endswith("_add_notes.sql")
    constants = (project.path / "shared/db/schema_head.py").read_text()
    assert f'REVISION = "{path.name[:14]}"' in constants
    assert f"TABLES = {(*TABLES, 'notes')}".replace("'", '"') in constants

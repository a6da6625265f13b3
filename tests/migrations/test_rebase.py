"""Putting a file behind all others: two heads, a file that was merged late, one timestamp twice."""

from collections.abc import Callable

import pytest

from migrations import files, rebase, runner
from shared.errors import MigrationError, Refused
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project


@pytest.fixture(autouse=True)
def _unreachable(use: Callable[..., None]) -> None:
    use(DATABASE_URL="postgresql://u:p@127.0.0.1:1/d", APP_ENV="test")


def parents(folder: Folder) -> dict[str, str | None]:
    """Give each file's words and the words of its parent, oldest first."""
    found = files.chain(folder.path)
    names = {file.revision: file.name[15:-4] for file in found}
    return {names[file.revision]: names[file.parent] if file.parent else None for file in found}


def test_of_two_heads_one_goes_behind_the_other_with_what_follows_it(folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_base")
    folder.add("20260102000000_ours")
    folder.add("20260103000000_theirs", parent="20260101000000")
    folder.add("20260104000000_theirs_too", parent="20260103000000")
    text = (folder.path / "20260103000000_theirs.sql").read_text()
    with pytest.raises(MigrationError, match="Two heads"):
        files.chain(folder.path)

    moved = rebase.rebase("20260103000000_theirs.sql", report=said.append, directory=folder.path)

    assert parents(folder) == {"base": None, "ours": "base", "theirs": "ours", "theirs_too": "theirs"}
    assert moved[0].read_text() == text.replace("parent: 20260101000000", "parent: 20260102000000")
    assert said[0].startswith("No database was asked whether it is applied: Cannot connect to")
    assert said[1] == f"20260103000000_theirs.sql is now {moved[0].name}"


def test_a_file_in_the_middle_goes_to_the_end_and_its_place_closes(folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a")
    folder.add("20260102000000_late")
    last = folder.add("20260103000000_b")
    edited = last.read_text()

    rebase.rebase("migrations/versions/20260102000000_late.sql", report=said.append, directory=folder.path)

    assert parents(folder) == {"a": None, "b": "a", "late": "b"}
    # What was applied of it has its text again.
    assert last.read_text() == edited.replace("parent: 20260102000000", "parent: 20260101000000")


def test_one_timestamp_twice_and_a_beginning_twice(folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a")
    folder.add("20260101000000_b", parent="none")
    folder.add("20260102000000_c", parent="20260101000000")

    rebase.rebase("20260101000000_b", report=said.append, directory=folder.path)

    assert parents(folder) == {"a": None, "c": "a", "b": "c"}


@pytest.mark.parametrize("name", ["20260101000000", "nonsense", "../20260101000000_c.sql"])
def test_what_names_no_single_file_is_refused(folder: Folder, said: list[str], name: str) -> None:
    folder.add("20260101000000_a")
    folder.add("20260101000000_b", parent="none")

    with pytest.raises(MigrationError, match="is not the name of one migration"):
        rebase.rebase(name, report=said.append, directory=folder.path)


def test_what_is_applied_keeps_its_name(url: str, folder: Folder, said: list[str]) -> None:
    folder.add("20260101000000_a")
    runner.deploy(report=said.append, directory=folder.path)

    with pytest.raises(Refused, match=r"20260101000000_a\.sql is applied to the database in DATABASE_URL"):
        rebase.rebase("20260101000000_a", report=said.append, directory=folder.path)

    assert len(files.chain(folder.path)) == 1


def test_the_message_about_two_heads_names_the_command_that_mends_them(url: str, project: Project) -> None:
    head = files.scan(project.versions.path)[-1].revision
    project.versions.add("20270101000000_ours", "CREATE TABLE ours (x int);")
    project.versions.add("20270102000000_theirs", "CREATE TABLE theirs (x int);", parent=head)
    told = project.run("migrations", "deploy")
    assert told.returncode == 6
    assert "db migrate rebase 20270102000000_theirs.sql (or 20270101000000_ours.sql)" in told.stderr

    mended = project.db("migrate", "rebase", "20270102000000_theirs.sql")

    assert (mended.returncode, mended.stderr) == (0, "")
    newest = files.chain(project.versions.path)[-1]
    assert f'REVISION = "{newest.revision}"' in (project.path / "shared/db/schema_head.py").read_text()
    assert project.run("migrations", "deploy").returncode == 0
    assert {"ours", "theirs"} <= set(catalog.tables(url))

"""docs/DATABASE.md, held against the code."""

import re
from pathlib import Path

import pytest
from typer.main import get_group

from migrations import files, runner
from ops import migrate
from shared import errors
from shared.db.schema_head import TABLES
from shared.settings import VARIABLES
from tests.migrations import catalog
from tests.migrations.conftest import Folder, Project

PAGE = Path(__file__).parent.parent.parent / "docs" / "DATABASE.md"
TEXT = PAGE.read_text("utf-8")


def rows_of(heading: str) -> list[str]:
    """Give the first cell of each row of the table below a heading."""
    section = TEXT.partition(f"# {heading}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `?([^`|]+?)`? \|", section, flags=re.MULTILINE)[1:]


def test_every_exit_code_is_in_the_table() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.Error)]

    told = {int(code) for code in rows_of("Exit codes") if code.isdigit()}
    # 0, 2 and 130 are the shell's and the command line's own.
    assert told == {c.exit_code for c in classes} | {0, 2, 130}


def test_the_variables_exist() -> None:
    told = [name for name in rows_of("Environment variables") if name.isupper()]

    known = {variable.name for variable in VARIABLES}
    assert set(told) <= known
    assert {name for name in known if name.startswith(("MIGRATION_", "ADMIN_"))} <= set(told)


def test_the_commands_and_options_are_those_of_the_program() -> None:
    group = get_group(migrate.app)
    options = {option for parameter in group.params for option in parameter.opts if option.startswith("--")}

    told = [command for command in rows_of("Migrations") if command.startswith("db migrate")]
    assert {"db migrate", *(f"db migrate {option}" for option in options)} | {
        f"db migrate {name}" for name in group.commands
    } == {re.sub(r" \[?[A-Z]+\]?$", "", command) for command in told}


def test_the_example_is_a_migration(url: str, folder: Folder, said: list[str]) -> None:
    (example,) = re.findall(r"```sql\n(-- Add users.phone.*?)```", TEXT, flags=re.DOTALL)
    example = re.sub(r"parent: \d{14}", f"parent: {files.scan()[-1].revision}", example)
    runner.deploy(report=said.append)
    for path in files.VERSIONS.glob("*.sql"):
        folder.write(path.stem, path.read_text("utf-8"))
    folder.write("20270101000000_add_users_phone", example)

    runner.deploy(report=said.append, directory=folder.path)
    runner.downgrade(report=said.append, directory=folder.path)

    assert runner.status().state == "equal"


@pytest.mark.usefixtures("url")
def test_the_sample_tables_can_be_removed_as_it_says(database: str, project: Project) -> None:
    assert project.run("migrations", "deploy").returncode == 0
    (drop,) = re.findall(r"```sql\n(DROP TABLE.*?)```", TEXT, flags=re.DOTALL)
    dropped = re.findall(r"\w+", drop.partition(";")[0].removeprefix("DROP TABLE"))
    with (project.path / "shared/db/schema.py").open("a") as schema:
        schema.write("".join(f"metadata.remove(metadata.tables['{name}'])\n" for name in dropped))
    assert project.db("migrate", "create", "drop_sample_tables").returncode == 0
    created = files.chain(project.versions.path)[-1].path
    created.write_text(created.read_text().replace("-- down", f"{drop}\n-- down"))

    done = project.run("migrations", "deploy")

    assert (done.returncode, done.stderr) == (0, "")
    assert set(catalog.tables(database)) == {"alembic_version", *TABLES} - set(dropped)
    # No admin is wanted any more, so production asks for no password; and no plans.
    catalog.rows(database, "UPDATE migration_state SET environment = 'production'")
    again = project.run("migrations", "deploy", APP_ENV="production")
    assert (again.returncode, again.stdout) == (0, "Nothing to migrate\n"), again.stderr
    assert project.run("alembic", "check").returncode == 0

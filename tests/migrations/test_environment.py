"""The environment tag: whose database it is, and who may migrate it."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from migrations import runner, tag
from ops import migrate
from shared.errors import EnvironmentMismatch, Refused
from shared.settings import DEFAULT_ADMIN_PASSWORD, Environment, get_settings
from tests.migrations import catalog
from tests.migrations.conftest import Folder

LOCAL = "postgresql://u:p@127.0.0.1:1/d"
REMOTE = "postgresql://u:p@db.example.com:1/d"


@pytest.mark.parametrize(
    ("url", "named", "tagged", "in_force"),
    [
        # Nothing is named: the tag, else by where the database is.
        (LOCAL, None, None, "development"),
        (LOCAL, None, "production", "production"),
        (REMOTE, None, None, "production"),
        (REMOTE, None, "preview", "preview"),
        # A named one must be the database's; a remote one without a tag counts as production.
        (LOCAL, "test", None, "test"),
        (LOCAL, "test", "test", "test"),
        (LOCAL, "test", "development", None),
        (LOCAL, "production", "preview", None),
        (REMOTE, "production", None, "production"),
        (REMOTE, "development", None, None),
        (REMOTE, "preview", None, None),
        (REMOTE, "preview", "preview", "preview"),
        (REMOTE, "preview", "production", None),
    ],
)
def test_which_environment_is_in_force(
    use: Callable[..., None], url: str, named: str | None, tagged: Environment | None, in_force: str | None
) -> None:
    use(DATABASE_URL=url, **({"APP_ENV": named} if named else {}))

    if in_force is None:
        with pytest.raises(EnvironmentMismatch) as caught:
            tag.in_force(get_settings(), tagged)
        assert f"db migrate tag {named}" in caught.value.solutions[-1]
    else:
        assert tag.in_force(get_settings(), tagged).environment == in_force


def test_the_first_migration_writes_it_and_others_keep_out(
    url: str, use: Callable[..., None], folder: Folder, said: list[str]
) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);", "DROP TABLE a;")
    runner.deploy(report=said.append, directory=folder.path)
    assert catalog.rows(url, "SELECT environment FROM migration_state") == [("test",)]
    folder.add("20260102000000_b", "CREATE TABLE b (x int);")
    before = catalog.contents(url)

    use(APP_ENV="production")
    for run in (runner.deploy, runner.dry_run, runner.downgrade):
        with pytest.raises(EnvironmentMismatch, match="environment is production, and the database is tagged test"):
            run(report=said.append, directory=folder.path)

    use(APP_ENV="")
    result = runner.deploy(report=said.append, directory=folder.path)
    assert result.status.environment == "test"
    assert before != catalog.contents(url)


def test_a_preview_leaves_production_alone_and_says_so(
    url: str, use: Callable[..., None], folder: Folder, said: list[str]
) -> None:
    folder.add("20260101000000_a", "CREATE TABLE a (x int);", "DROP TABLE a;")
    use(APP_ENV="", VERCEL_ENV="production", ADMIN_INITIAL_PASSWORD="correct horse battery")
    runner.deploy(report=said.append, directory=folder.path)
    folder.add("20260102000000_b", "CREATE TABLE b (x int);")
    before = catalog.schema(url), catalog.contents(url)
    use(VERCEL_ENV="preview")

    for run in (runner.deploy, runner.dry_run):
        said.clear()
        assert run(report=said.append, directory=folder.path).status.state == "behind"
        assert said == [
            "The environment is preview, and the database is tagged production: it is not migrated from here.\n"
            "  - Point DATABASE_URL at the database of preview.\n"
            "  - If this one is preview's own: db migrate tag preview"
        ]
    with pytest.raises(EnvironmentMismatch):
        runner.downgrade(report=said.append, directory=folder.path)

    assert (catalog.schema(url), catalog.contents(url)) == before


def test_production_s_rules_hold_in_a_local_database_that_is_tagged_so(
    url: str, use: Callable[..., None], folder: Folder, said: list[str]
) -> None:
    """Through a tunnel, say: nothing names the environment, and the address is local."""
    folder.add("20260101000000_a", "CREATE TABLE a (x int);")
    runner.deploy(report=said.append, directory=folder.path)
    catalog.rows(url, "UPDATE migration_state SET environment = 'production'")
    folder.add("20260102000000_b", "CREATE TABLE b (x int);")
    use(APP_ENV="", MIGRATION_REQUIRE_FORCE="true")

    with pytest.raises(Refused, match="MIGRATION_REQUIRE_FORCE is true and the environment is production"):
        runner.deploy(report=said.append, directory=folder.path)


def test_the_documented_password_serves_a_database_that_is_tagged_for_tests(use: Callable[..., None]) -> None:
    use(DATABASE_URL=REMOTE)

    assert get_settings().admin_initial_password is None
    assert tag.in_force(get_settings(), "test").admin_initial_password == DEFAULT_ADMIN_PASSWORD
    assert tag.in_force(get_settings(), "preview").admin_initial_password is None


def test_the_command_shows_and_changes_it(url: str) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(migrate.app, ["tag", *arguments])
        return done.exit_code, done.output

    assert run() == (0, "none\n")
    assert run("staging")[0] == 2
    assert run("preview") == (0, "The database is tagged preview\n")
    assert run() == (0, "preview\n")

"""A deploy with nothing to do: what it costs, and that it never takes an unfinished database for a finished one."""

from collections.abc import Callable
from typing import LiteralString

import pytest

from migrations import files, ledger, runner
from migrations.connection import session
from shared.db.performance_indexes import INDEXES
from shared.errors import HistoryMismatch
from tests.migrations import catalog
from tests.migrations.conftest import PRODUCTION, Folder
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy

CONNECT = 3  # flights: start-up packet, two messages of SCRAM


def deploy(folder: Folder | None = None) -> list[str]:
    """Deploy, and give what it said."""
    said: list[str] = []
    runner.deploy(report=said.append, directory=folder.path if folder else files.VERSIONS)
    return said


@pytest.mark.parametrize("number", [None, 1000], ids=["ours", "1000"])
def test_it_costs_one_round_trip_and_no_lock(
    migrated_database: str, wire_proxy: WireProxy, use: Callable[..., None], folder: Folder, number: int | None
) -> None:
    use(DATABASE_URL=migrated_database, APP_ENV="test")
    if number is not None:
        add_revisions(folder, number)
        assert deploy(folder) == ["Nothing to migrate"]  # writes the fingerprint
    use(DATABASE_URL=wire_proxy.url(migrated_database), DATABASE_DISABLE_SSL="true")

    with wire_proxy.count() as count:
        assert deploy(folder if number else None) == ["Nothing to migrate"]

    assert (count.connections, count.flights) == (1, CONNECT + 1)


def add_revisions(folder: Folder, number: int) -> None:
    """Have a folder of so many files, and a migrated database that has them applied."""
    for path in files.VERSIONS.glob("*.sql"):
        folder.write(path.stem, path.read_text("utf-8"))
    folder.parent = files.scan()[-1].revision
    for n in range(number - len(files.scan())):
        folder.add(f"2030{1 + n // 600:02}{1 + n // 60 % 28:02}00{n % 60:02}00_n{n}")
    found = files.scan(folder.path)
    assert len(found) == number
    with session() as connection, connection.transaction():
        ledger.replace(connection, found)
        connection.execute("UPDATE alembic_version SET version_num = %s", [found[-1].revision])


UNFINISHED: dict[str, tuple[LiteralString, LiteralString]] = {
    # what an earlier run did not come to, and what tells that this one did
    "plans": ("DELETE FROM plans", "SELECT count(*) > 0 FROM plans"),
    "admin user": ("DELETE FROM users", "SELECT count(*) = 1 FROM users"),
    "fingerprint": (
        "UPDATE migration_state SET fingerprint = NULL",
        "SELECT fingerprint IS NOT NULL FROM migration_state",
    ),
    "tag": (
        "UPDATE migration_state SET environment = NULL",
        "SELECT environment = 'production' FROM migration_state",
    ),
    "state": ("DELETE FROM migration_state", "SELECT count(*) = 1 FROM migration_state"),
    "performance index": (
        "DROP INDEX users_admin_idx",
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'users_admin_idx'::regclass",
    ),
    "performance index, INVALID": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_admin_idx'::regclass",
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'users_admin_idx'::regclass",
    ),
}


@pytest.mark.parametrize(("damage", "mended"), UNFINISHED.values(), ids=UNFINISHED.keys())
def test_what_an_earlier_run_left_undone_is_done(
    postgres: Postgres,
    production_template: str,
    use: Callable[..., None],
    damage: LiteralString,
    mended: LiteralString,
) -> None:
    with postgres.database(template=production_template) as name:
        use(DATABASE_URL=postgres.url(name), **PRODUCTION)
        assert deploy() == ["Nothing to migrate"]
        catalog.rows(postgres.admin_url(name), damage)

        said = deploy()

        assert said[-1] == "Nothing to migrate"
        assert catalog.rows(postgres.url(name), mended) == [(True,)]
        assert deploy() == ["Nothing to migrate"]


def test_a_ledger_that_tells_another_history_is_not_passed_over(
    postgres: Postgres, production_template: str, use: Callable[..., None]
) -> None:
    with postgres.database(template=production_template) as name:
        use(DATABASE_URL=postgres.url(name), **PRODUCTION)
        catalog.rows(postgres.url(name), "UPDATE migration_ledger SET checksum = reverse(checksum)")

        with pytest.raises(HistoryMismatch):
            deploy()


def test_another_list_of_indexes_is_looked_at(
    postgres: Postgres, production_template: str, use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint covers what the code declares, so that a changed declaration is not passed over."""
    with postgres.database(template=production_template) as name:
        use(DATABASE_URL=postgres.url(name), APP_ENV="production")
        changed = [index._replace(definition="USING btree (created_at)") for index in INDEXES]
        monkeypatch.setattr("migrations.state.INDEXES", changed)
        monkeypatch.setattr("migrations.indexes.INDEXES", changed)

        assert any("is not as shared/db/performance_indexes.py declares it" in line for line in deploy())


def test_development_has_no_performance_indexes(url: str) -> None:
    deploy()

    assert catalog.rows(url, "SELECT to_regclass('users_admin_idx')") == [(None,)]
    assert deploy() == ["Nothing to migrate"]

"""Deploys that are cut off or killed anywhere: the next one finishes them."""

import signal
from collections.abc import Callable

import pytest
from psycopg.abc import PQGen
from psycopg.waiting import Wait

from migrations import connection, runner
from shared.errors import Error
from tests.migrations import catalog
from tests.migrations.conftest import PRODUCTION, Project
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.servers.proxy_link import When
from tests.shared.db.watching import running, until

SEED = b"INSERT INTO plans"
CUTS: list[tuple[bytes, When]] = [
    (b"pg_try_advisory_lock", "answer"),
    (b"CREATE TABLE migration_ledger", "answer"),
    (b"CREATE TABLE alembic_version", "answer"),
    (b"INSERT INTO migration_ledger", "answer"),
    (b"CREATE INDEX CONCURRENTLY", "answer"),
    (SEED, "answer"),
    (b"INSERT INTO migration_state (fingerprint)", "answer"),
    (b"pg_advisory_unlock", "before"),
]


@pytest.mark.parametrize(("step", "when"), CUTS, ids=lambda value: value if isinstance(value, str) else value.decode())
def test_a_deploy_that_is_cut_off_is_finished_by_the_next_one(
    postgres: Postgres,
    url: str,
    production_template: str,
    wire_proxy: WireProxy,
    use: Callable[..., None],
    step: bytes,
    when: When,
) -> None:
    use(DATABASE_URL=wire_proxy.url(url), DATABASE_DISABLE_SSL="true", **PRODUCTION)
    trap = wire_proxy.on("client", step, do="rst", when=when)
    with pytest.raises(Error):
        runner.deploy(report=lambda _: None)
    assert trap.event.is_set()

    runner.deploy(report=lambda _: None)

    assert schema(url) == schema(postgres.url(production_template))
    assert (runner.status().state, runner.status().problems) == ("equal", ())
    assert catalog.rows(url, "SELECT count(*), count(*) FILTER (WHERE role = 'admin') FROM users") == [(1, 1)]
    assert catalog.rows(url, "SELECT fingerprint IS NOT NULL FROM migration_state") == [(True,)]


def schema(url: str) -> list[str]:
    """List what is there; comments on indexes aside, which tell the day."""
    return [line.rpartition(" | ")[0] if " | i | " in line else line for line in catalog.schema(url)]


def test_killed_between_revisions_and_fingerprint(url: str, wire_proxy: WireProxy, project: Project) -> None:
    """With -9, of a runner that has applied everything; its lock is free as soon as its connection is gone."""
    trap = wire_proxy.on("client", SEED, do="pause")
    process = project.start("migrations", "deploy", DATABASE_URL=wire_proxy.url(url), DATABASE_DISABLE_SSL="true")
    trap.wait()
    process.kill()
    process.communicate()
    assert catalog.rows(url, "SELECT count(*) FROM plans") == [(0,)]

    wire_proxy.cut()
    done = project.run("migrations", "deploy")

    assert done.returncode == 0, done.stderr
    assert catalog.rows(url, "SELECT count(*) > 0 FROM plans") == [(True,)]
    assert catalog.rows(url, "SELECT fingerprint IS NOT NULL FROM migration_state") == [(True,)]


def test_a_connection_can_be_rolled_back_after_an_interrupt_within_the_drivers_own_code(
    postgres: Postgres, url: str, use: Callable[..., None]
) -> None:
    """There it ends what reads the answer; elsewhere the driver reads on by itself."""
    use(DATABASE_URL=url)
    with connection.session() as session:
        session.autocommit = False
        session.execute("CREATE TABLE half_done ()")

        def interrupted() -> Wait:
            session.pgconn.send_query(b"SELECT pg_sleep(60)")
            until(lambda: running(postgres, url, "pg_sleep"))
            raise KeyboardInterrupt

        def reading() -> PQGen[None]:
            yield interrupted()

        with pytest.raises(KeyboardInterrupt):
            session.wait(reading())

        assert not running(postgres, url, "pg_sleep")
        session.rollback()
        assert session.execute("SELECT to_regclass('half_done')").fetchone() == (None,)
        session.rollback()


def test_an_interrupt_at_commit_promises_nothing(url: str, wire_proxy: WireProxy, project: Project) -> None:
    trap = wire_proxy.on("client", b"UPDATE alembic_version", do="pause", when="answer")
    process = project.start("migrations", "deploy", DATABASE_URL=wire_proxy.url(url), DATABASE_DISABLE_SSL="true")
    trap.wait()
    process.send_signal(signal.SIGINT)
    wire_proxy.resume()
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "_create_sessions.sql. All its statements had run; it may be applied or not." in output

"""The test servers are what they are said to be, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest

from shared.settings import get_settings
from tests.conftest import clear_environment
from tests.servers import binaries
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_second_installation_does_nothing() -> None:
    before = {path: path.stat().st_mtime_ns for path in binaries.CACHE.glob("p*")}
    command = [sys.executable, "-m", "tests.servers.install"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "..." not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in binaries.CACHE.glob("p*")} == before


def test_each_major_version_runs(any_postgres: Postgres) -> None:
    version = any_postgres.admin().info.server_version
    assert version // 10000 == any_postgres.major


def test_a_database_is_empty_and_belongs_to_an_ordinary_role(database: str) -> None:
    with psycopg.connect(database) as connection:
        role = connection.execute("""
            SELECT current_user, rolsuper, pg_get_userbyid(datdba) FROM pg_roles, pg_database
            WHERE rolname = current_user AND datname = current_database()
        """).fetchone()
        assert role == ("app", False, "app")
        connection.execute("CREATE TABLE here (id int)")
        assert connection.execute("SELECT relname FROM pg_stat_user_tables").fetchall() == [("here",)]


def test_migrated_databases_are_not_shared(migrated_database: str, migrated_template: str, postgres: Postgres) -> None:
    with psycopg.connect(migrated_database) as connection:
        connection.execute("DELETE FROM plans")
    with postgres.database(migrated_template) as name, psycopg.connect(postgres.url(name)) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM plans").fetchone() == (True,)


def test_a_standby_follows_and_is_promoted(own_postgres: Postgres, standby: Postgres) -> None:
    assert standby.admin().execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    own_postgres.create_database("copied")
    own_postgres.server.stop()
    assert standby.admin().execute("SELECT pg_promote()").fetchone() == (True,)
    with psycopg.connect(standby.url("copied")) as connection:
        connection.execute("CREATE TABLE here (id int)")


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_a_connection_left_behind_is_an_error(
    postgres: Postgres, poolers: list[PgBouncer], pooled: bool, monkeypatch: pytest.MonkeyPatch, pgbouncer: PgBouncer
) -> None:
    monkeypatch.setattr("tests.servers.postgres.WAIT", 0.1)
    monkeypatch.setattr("tests.servers.pgbouncer.WAIT", 0.1)
    lent = ExitStack()
    url = postgres.url(lent.enter_context(postgres.database(poolers=poolers)))
    left = psycopg.connect(pgbouncer.url(url) if pooled else url)
    with pytest.raises(AssertionError, match=r"left connections behind:\n.*app"):
        lent.close()
    left.close()


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DATABASE_SSL", "APP_ENV", "VERCEL_ENV", "AWS_REGION", "PGOPTIONS", "PGSSLMODE"):
        assert name not in os.environ
        monkeypatch.setenv(name, "x")
    clear_environment(monkeypatch)
    assert "PGOPTIONS" not in os.environ
    assert get_settings().environment == "development"


def test_servers_end_with_the_test_process(run_directory: Path, pgbouncer: PgBouncer) -> None:
    directory = run_directory / "killed"
    script = f"""
        import sys
        from pathlib import Path
        from tests.servers import pgbouncer, postgres
        directory = Path({str(directory)!r})
        with postgres.running(18, directory) as server:
            with pgbouncer.running("distribution", directory / "pooler", server.port, {{}}) as pooler:
                print(server.server.pid, pooler.pid, flush=True)
                sys.stdin.read()
    """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in script.splitlines())]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert [server.is_running() for server in servers] == [True, True]
        process.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(servers, timeout=10)
    assert (len(gone), alive) == (2, [])

"""Forty serverless instances wake at once before a server that has a hundred slots: none of their requests fails."""

import json
import os
import subprocess
import sys

import pytest

from tests.servers.postgres import Postgres
from tests.shared.db.instances import ROOT
from tests.shared.db.watching import until

INSTANCES, THREADS, READS = 40, 10, 10
LIMIT = 90.0  # seconds for all of it; it takes about 4 on two processors


@pytest.mark.parametrize("driver", ["psycopg", pytest.param("pg8000", marks=pytest.mark.soak)], indirect=True)
def test_a_storm_of_instances_is_served_by_a_hundred_slots(own_postgres: Postgres, driver: str) -> None:
    environ = {**os.environ, "DATABASE_URL": own_postgres.url("postgres"), "APP_ENV": "test", "VERCEL": "1"}
    command = [sys.executable, "-m", "tests.shared.db.programs.storm", *map(str, (INSTANCES, THREADS, READS))]
    counts = [0]

    def is_over() -> bool:
        counts.append(connections(own_postgres))
        return process.poll() is not None

    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            until(is_over, LIMIT)
            assert process.stdout is not None
            seen = json.loads(process.stdout.read())
        finally:
            process.kill()
    errors = seen.pop("errors")
    print(f"\n{driver}: {seen}, at most {max(counts)} connections at once")  # noqa: T201
    assert (seen["requests"], errors) == (INSTANCES * THREADS * READS, [])


def connections(postgres: Postgres) -> int:
    """Count the instances' connections."""
    row = postgres.admin().execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").fetchone()
    assert row is not None
    return int(row[0])

"""The guides' pool sizes, by where a process runs, and what overrides them."""

import os
import re
from pathlib import Path

import pytest

from shared import db
from shared.db.sizes import available_cpus, pool_size, server_size
from shared.settings import Settings
from tests.shared.db.conftest import Use

REMOTE = "postgresql://app:pw@db.example.com/app"


def size(**environ: str) -> tuple[int, float, float, float | None]:
    """Return the largest number of connections, idle and surplus timeout, and the time to wait for one."""
    found = pool_size(Settings.read({"DATABASE_URL": REMOTE, **environ}))
    return found.max_size, found.idle_timeout, found.surplus_timeout, found.timeout


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"VERCEL": "1", "VERCEL_ENV": "production"}, (10, 20, 1, 15)),
        ({"VERCEL": "1", "VERCEL_ENV": "preview"}, (10, 20, 1, 15)),
        ({"AWS_LAMBDA_FUNCTION_NAME": "health"}, (10, 20, 1, 15)),
        ({"APP_ENV": "development"}, (10, 30, 30, 15)),
        ({"APP_ENV": "test"}, (5, 10, 10, 15)),
    ],
)
def test_the_guides_numbers(environ: dict[str, str], expected: tuple[int, float, float, float]) -> None:
    assert size(**environ) == expected


@pytest.mark.parametrize(("cpus", "connections"), [(1, 3), (2, 5), (8, 17), (9, 19), (10, 20), (64, 20)])
def test_a_long_lived_server_sizes_by_its_processors(cpus: int, connections: int) -> None:
    found = server_size(cpus)

    assert found[:3] == (connections, 60, 60)
    assert f"{cpus} CPUs" in found.rule


@pytest.mark.parametrize("environment", ["production", "preview"])
def test_production_outside_a_platform_is_a_long_lived_server(environment: str) -> None:
    assert size(APP_ENV=environment) == (server_size(available_cpus()).max_size, 60, 60, 15)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "25000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "50000\n"}, None),
        ({"cpu.max": "nonsense\n"}, None),
        ({}, None),
    ],
)
def test_processors_are_those_of_the_affinity_and_the_containers_quota(
    tmp_path: Path, files: dict[str, str], quota: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    allowed = len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path) == (allowed if quota is None else min(allowed, quota))


def test_affinity_is_read_anew(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


# -- overrides --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "query", "expected"),
    [
        ({"DATABASE_POOL_MAX": "7"}, "", (7, 20, 1, 15)),
        ({"DATABASE_POOL_IDLE_TIMEOUT": "45"}, "", (10, 45, 1, 15)),
        ({"DATABASE_POOL_TIMEOUT": "3"}, "", (10, 20, 1, 3)),
        ({"DATABASE_POOL_TIMEOUT": "0"}, "", (10, 20, 1, None)),
        ({}, "connection_limit=1&pool_timeout=10", (1, 20, 1, 10)),
        ({}, "pool_timeout=0&connect_timeout=10", (10, 20, 1, None)),
        ({"DATABASE_POOL_MAX": "7", "DATABASE_POOL_TIMEOUT": "3"}, "connection_limit=1&pool_timeout=0", (7, 20, 1, 3)),
    ],
)
def test_variables_beat_the_url_and_the_url_beats_the_rule(
    environ: dict[str, str], query: str, expected: tuple[int, float, float, float | None]
) -> None:
    assert size(VERCEL="1", **environ, DATABASE_URL=f"{REMOTE}?{query}") == expected


def test_a_surplus_connection_never_outlives_an_idle_one() -> None:
    assert size(APP_ENV="development", DATABASE_POOL_IDLE_TIMEOUT="4") == (10, 4, 4, 15)


def test_each_number_tells_where_it_comes_from() -> None:
    found = pool_size(
        Settings.read({"VERCEL": "1", "DATABASE_POOL_MAX": "7", "DATABASE_URL": f"{REMOTE}?pool_timeout=0"})
    )

    assert found.why("max_size") == "DATABASE_POOL_MAX"
    assert found.why("timeout") == "pool_timeout in the URL"
    assert found.why("idle_timeout") == found.rule
    assert "serverless" in found.rule


def test_the_pool_is_made_by_the_rule(use: Use, database: str) -> None:
    use(database, DATABASE_POOL_MAX="3", DATABASE_POOL_IDLE_TIMEOUT="7", DATABASE_POOL_TIMEOUT="2")
    pool = db.get_pool()

    assert (pool.max_size, pool.idle_timeout, pool.surplus_timeout, pool.timeout) == (3, 7, 7, 2)
    assert pool.track


def test_on_lambda_one_request_at_a_time_opens_one_connection(use: Use, database: str) -> None:
    use(database, AWS_LAMBDA_FUNCTION_NAME="health", APP_ENV="production")
    for n in range(50):
        assert db.fetch_value("SELECT %(n)s::int", {"n": n}) == n
    with db.transaction() as tx:
        assert tx.fetch_value("SELECT 1") == 1

    statistics = db.get_pool().statistics()
    assert (statistics["opened"], statistics["max_size"]) == (1, 10)
    assert not db.get_pool().track


# -- the documentation ------------------------------------------------------------------------------


def test_the_documented_sizes_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[3] / "docs" / "CONNECTIONS.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w[^|]*) \| ([^|]*\d[^|]*) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    documented = {where: (most, idle, surplus) for where, most, idle, surplus in rows}

    for where, environ in (
        ("Serverless instance (Vercel, Lambda)", {"VERCEL": "1"}),
        ("Development", {"APP_ENV": "development"}),
        ("Test", {"APP_ENV": "test"}),
    ):
        assert documented.pop(where) == tuple(f"{number:g}" for number in size(**environ)[:3])
    large = server_size(64)
    assert documented == {
        "Long-lived production server": (
            f"CPU x 2 + 1, at most {large.max_size}",
            f"{large.idle_timeout:g}",
            f"{large.surplus_timeout:g}",
        )
    }

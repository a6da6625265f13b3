"""`--keep`: which backups stay."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.backup import manifest, retention
from ops.backup.manifest import Manifest
from ops.backup.storage import Folder
from shared.errors import ConfigurationError
from tests.ops.backup.conftest import Db

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
PLAIN = Manifest(
    "app", "db:5432", NOW.isoformat(), "asked for", "18.6", "18.6", None, 3, "0" * 64, {}, 0, {}, [], []
)  # fmt: skip


def backups(*ages: float, verified: frozenset[int] = frozenset()) -> dict[str, Manifest]:
    """Make backups that are so many days old; those with an index in `verified` are verified."""
    made = {}
    for index, age in enumerate(ages):
        time = NOW - timedelta(days=age)
        made[f"{index}"] = replace(
            PLAIN, taken_at=time.isoformat(), verified_at=NOW.isoformat() if index in verified else None
        )
    return made


def kept(found: dict[str, Manifest], rule: str) -> set[str]:
    return set(found) - set(retention.superfluous(found, retention.parse(rule)))


def test_one_a_day_week_and_month_stays() -> None:
    daily = backups(*range(400))
    assert kept(daily, "7d") == set(map(str, range(7)))
    assert len(kept(daily, "12m")) == 12
    # 22 November 2026 is a Sunday: the newest of the last four weeks are the Sundays.
    assert kept(daily, "4w") == {"0", "7", "14", "21"}
    assert kept(daily, "7d,4w,12m") == kept(daily, "7d") | kept(daily, "4w") | kept(daily, "12m")


def test_of_one_day_the_newest_stays() -> None:
    assert kept(backups(0.01, 0.02, 0.05, 1), "2d") == {"0", "3"}


def test_a_gap_does_not_cost_a_backup() -> None:
    """Days without a backup do not count: after a month of failures the old ones are all there is."""
    assert kept(backups(40, 41, 42), "2d") == {"0", "1"}


def test_the_newest_verified_one_stays() -> None:
    assert kept(backups(0, 1, 200, 300, verified=frozenset({2, 3})), "1d") == {"0", "2"}


@given(
    ages=st.lists(st.integers(0, 800), min_size=1, max_size=40),
    verified=st.frozensets(st.integers(0, 39)),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)),
)
def test_whatever_the_rule_the_newest_and_the_newest_verified_stay(
    ages: list[int], verified: frozenset[int], counts: tuple[int, int, int]
) -> None:
    found = backups(*ages, verified=verified)
    stay = kept(found, "{}d,{}w,{}m".format(*counts))
    times = {found[name].time for name in stay}
    assert max(one.time for one in found.values()) in times
    proven = [one.time for one in found.values() if one.verified_at]
    assert not proven or max(proven) in {found[name].time for name in stay if found[name].verified_at}


@pytest.mark.parametrize("rule", ["", "7", "7d,", "7x", "0d", "7d,3d", "-1d", "d"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(ConfigurationError, match="not understood"):
        retention.parse(rule)


def test_only_whole_backups_of_the_same_database_are_removed(tmp_path: Path) -> None:
    ours, theirs = "app-000000", "app-111111"
    names = [manifest.name_of(series, NOW - timedelta(days=day)) for series in (ours, theirs) for day in range(3)]
    for name in names:
        taken = datetime.strptime(name[-21:-5], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        (tmp_path / name).write_bytes(b"abc")
        (tmp_path / f"{name}.json").write_bytes(replace(PLAIN, taken_at=taken.isoformat()).render())
    incomplete = manifest.name_of(ours, NOW - timedelta(days=90))
    (tmp_path / incomplete).write_bytes(b"abc")
    (tmp_path / "notes.txt").write_bytes(b"abc")

    removed = retention.thin_out(Folder(tmp_path), names[0], retention.parse("1d"))

    assert removed == [names[2], names[1]]
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".json"}
    assert left == {names[0], *names[3:], incomplete, "notes.txt"}


def test_the_command_thins_out_after_the_backup(filled: str, backup: Path, db: Db) -> None:
    """The one before is of the same day."""
    output = db(filled, "backup", "--to", str(backup.parent), "--keep", "1d")
    assert f"Removed {backup.name}" in output
    (listed,) = json.loads(db(filled, "backups", str(backup.parent), "--json"))
    assert listed["name"] != backup.name
    with pytest.raises(ConfigurationError):
        db(filled, "backup", "--to", str(backup.parent), "--keep", "sometimes")
    assert len(list(backup.parent.glob("*.dump"))) == 1, "a wrong rule is found before the backup"

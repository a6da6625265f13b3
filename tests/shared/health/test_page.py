"""docs/HEALTH.md has the checks and thresholds of the code, and the code has no check that it does not show."""

from shared.health import thresholds
from shared.health.result import Threshold
from shared.health.topics import TOPICS
from shared.health.units import bytes_text, cell, counted, heading, seconds_text
from tests.shared.health.page import PAGE, block, current


def test_the_table_is_that_of_the_code() -> None:
    assert current(PAGE.read_text("utf-8")) == block(), "run: python -m tests.shared.health.page"


def test_every_threshold_is_a_check_s_and_says_why() -> None:
    used = [check.threshold for checks in TOPICS.values() for check in checks if check.threshold]
    ours = [value for value in vars(thresholds).values() if isinstance(value, Threshold)]
    assert all(limits in ours and limits.reason for limits in used)
    assert all(limits in used for limits in ours)


def test_numbers_as_people_read_them() -> None:
    assert [bytes_text(n) for n in (1, 1023, 1536, 5 * 1024**3)] == ["1 byte", "1,023 bytes", "1.5 kB", "5.0 GB"]
    assert [seconds_text(s) for s in (0.0312, 9.99, 59, 90, 7200, 200000)] == [
        "0.0312 s", "9.99 s", "59 s", "1.5 min", "2.0 h", "2.3 d",
    ]  # fmt: skip
    assert (heading("last_vacuum_seconds"), heading("size_bytes"), heading("dead_percent")) == (
        "last vacuum", "size", "dead",
    )  # fmt: skip
    assert [cell(key, value) for key, value in {"a_seconds": 90, "b_bytes": 2048, "c_percent": 5.0}.items()] == [
        "1.5 min", "2.0 kB", "5 %",
    ]  # fmt: skip
    assert [cell("x", value) for value in (None, True, [1, 2], "text", 5)] == ["", "yes", "1, 2", "text", "5"]
    assert [counted(n, "index") for n in (0, 1, 2)] == ["0 indexes", "1 index", "2 indexes"]

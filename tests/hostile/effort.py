"""How hard the tests try: a few inputs, the same in each run; or, under the profile `soak`, new ones for a while."""

import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings

IS_SOAK = settings.get_current_profile_name() == "soak"
SOAK_SECONDS = 12.0  # for each test

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
hard = settings(
    max_examples=200 if IS_SOAK else 100,
    derandomize=not IS_SOAK,
    database=None,
    deadline=None,
    suppress_health_check=_QUIET,
)


def keep_at(test: Callable[[], None], seconds: float = SOAK_SECONDS) -> None:
    """Run a test that hypothesis drives: once, or in a soak for so many seconds."""
    end = time.monotonic() + seconds
    test()
    while IS_SOAK and time.monotonic() < end:
        test()

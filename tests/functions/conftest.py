"""What the tests of endpoints share: browsers on each platform, and hashes that cost nothing."""

from collections.abc import Callable, Iterator

import pytest

from tests import access
from tests.access import Browser, Platform

Open = Callable[..., Browser]


@pytest.fixture
def cheap_hashes() -> Iterator[None]:
    """Hash with parameters that cost nothing."""
    with access.cheap_hashes():
        yield


@pytest.fixture(params=access.PLATFORMS)
def platform(request: pytest.FixtureRequest) -> Platform:
    """Run the test on each platform's form of requests."""
    platform: Platform = request.param
    return platform


@pytest.fixture
def open_browser(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open browsers on the app: open_browser(), or open_browser(address="192.0.2.8")."""
    return lambda address=access.ADDRESS: access.browser(platform, monkeypatch, address)


@pytest.fixture
def browser(rolled_back: None, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """Open a browser on the app as a server runs it."""
    return access.browser("server", monkeypatch)

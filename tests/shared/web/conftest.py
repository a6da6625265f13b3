"""What the tests of HTTP share: a client of some endpoints, and errors as RFC 9457 writes them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from shared.web.application import EndpointFile, application
from shared.web.endpoint import Endpoint

Serve = Callable[..., TestClient]
Use = Callable[..., None]


@pytest.fixture(autouse=True)
def pytests_own_log_format() -> Iterator[None]:
    """Give pytest's handlers back their format: an application formats whatever the root logger has."""
    before = [(handler, handler.formatter) for handler in logging.getLogger().handlers]
    yield
    for handler, formatter in before:
        handler.setFormatter(formatter)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make a client of an application with these endpoints: serve(endpoint, ...)."""
    with ExitStack() as stack:

        def serve(*endpoints: Endpoint | EndpointFile) -> TestClient:
            return stack.enter_context(TestClient(application(endpoints)))

        yield serve

"""The extension that has Lambda send SIGTERM; tests/deploy/aws runs it in a real instance."""

import logging
import signal
import threading

import pytest

from shared.web import aws_extension
from tests.servers.process import free_port


@pytest.mark.parametrize("address", [None, "nonsense", "127.0.0.1:{port}"])
def test_without_it_the_function_works_on(
    address: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if address is not None:
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", address.format(port=free_port()))
    before = signal.getsignal(signal.SIGTERM), threading.active_count()

    with caplog.at_level(logging.WARNING):
        aws_extension.close_connections_at_the_end()

    assert "the extension could not be registered" in caplog.text
    assert (signal.getsignal(signal.SIGTERM), threading.active_count()) == before

"""What the tests do to addresses and to child processes is what they say."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
import pytest

from tests.servers.binaries import Unavailable
from tests.servers.process import free_port, freeze, knocks, silent, thaw

ADDRESS = "127.0.0.2"


def test_who_knocks_is_seen_where_nobody_listens_and_where_nobody_answers() -> None:
    port = free_port()
    try:
        with knocks(ADDRESS, port) as seen:
            with socket.socket() as client:
                client.bind(("127.0.0.1", 0))
                assert client.connect_ex((ADDRESS, port)) != 0
                assert seen() == {client.getsockname()[1]}
            with silent(ADDRESS, port), socket.socket() as client:
                before = seen()
                client.setblocking(False)
                client.connect_ex((ADDRESS, port))
                assert seen() - before == {client.getsockname()[1]}
                with socket.socket() as other:
                    other.connect_ex((ADDRESS, free_port()))
                assert seen() - before == {client.getsockname()[1]}
    except Unavailable as error:
        pytest.skip(str(error))


def test_who_is_frozen_stands_still_until_thawed() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        freeze(process)
        assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        thaw(process)
        process.communicate(b"\n", timeout=10)
    assert process.returncode == 0

"""Ports and addresses, and child processes: they do not outlive the tests, which may freeze them."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ops.processes import Identity, die_with_parent, not_root
from tests.servers.binaries import Unavailable

PORTS = range(20000, 32000)  # below the ephemeral ones, which any connection of this machine may take
_QUEUE = 8  # connections, more than a listener keeps that wants none to wait
PORT_TIMEOUT = 10.0  # seconds until a started server listens


def free_port() -> int:
    """Choose a port of 127.0.0.1 on which nobody listens."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("none of 100 ports is free")


@contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """Let packets to this address vanish: Linux answers none where the queue of a listener is full (listen(2))."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(_QUEUE):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield


@contextmanager
def knocks(address: str, port: int) -> Iterator[Callable[[], set[int]]]:
    """Watch who tries to connect to an address, also where it refuses or is silent: give their ports, until now.

    It takes a raw socket, which has what arrives before TCP does (raw(7)). Raises Unavailable where there can be none.
    """
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    except PermissionError as error:
        raise Unavailable("only root may watch what arrives") from error
    found: set[int] = set()

    def until_now() -> set[int]:
        with suppress(BlockingIOError):
            while packet := listener.recv(128):
                header = (packet[0] & 15) * 4  # bytes of IPv4's own (RFC 791 3.1)
                source, target = struct.unpack_from("!HH", packet, header)
                if target == port:
                    found.add(source)
        return set(found)

    with listener:
        listener.setblocking(False)
        listener.bind((address, 0))
        yield until_now


def through(url: str, port: int) -> str:
    """Return a database URL with 127.0.0.1 and `port` in place of its host and port."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()


def start(command: Sequence[str], port: int, log: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a server that refuses to be root, and return when it listens on `port`.

    `log`'s directory becomes its user's. It ends with this thread, also after kill -9 (Linux). Raises Unavailable when
    nobody may run it, and RuntimeError with its log when it ends early.
    """

    def can_run(identity: Identity) -> bool:
        ask = [*identity.prefix, command[0], "--version"]
        try:
            done = subprocess.run(ask, cwd=log.parent, env=environ, capture_output=True, check=False, **identity.popen)
        except OSError:
            return False
        return done.returncode == 0

    identity = not_root(log.parent, can_run)
    if identity is None:
        raise Unavailable(f"{command[0]} does not run as root, and no other user can reach it")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*identity.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=environ,
            start_new_session=True,
            preexec_fn=die_with_parent,
            **identity.popen,
        )
    deadline = time.monotonic() + PORT_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.01)  # a port offers no event to wait for
    stop(process)
    raise RuntimeError(f"{command[0]} does not listen on port {port}:\n{log.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait until it is gone."""
    process.kill()
    process.wait()


def freeze(process: subprocess.Popen[Any]) -> None:
    """Stop a child process as a platform does, and return once it stands still."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def thaw(process: subprocess.Popen[Any]) -> None:
    """Let it go on."""
    process.send_signal(signal.SIGCONT)

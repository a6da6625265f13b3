"""An instance of a built function, run by Vercel's own runtime as the platform runs it.

The runtime connects to a Unix socket (VERCEL_IPC_PATH), says there on which port of 127.0.0.1 it answers HTTP, and
writes its logs there: JSON objects, each ended by a NUL.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from ops.processes import die_with_parent

WAIT = 30.0  # seconds for whatever is waited for; never reached where all is well


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


class Instance:
    """A running function. `logs` is what it has written so far, whole messages."""

    def __init__(self, process: subprocess.Popen[bytes], ipc: socket.socket) -> None:
        self.process = process
        self.logs: list[str] = []
        self._changed = threading.Condition()
        self._port: int | None = None
        self._ended = False
        threading.Thread(target=self._read, args=(ipc,), daemon=True).start()
        self._wait(lambda: self._port is not None or self._ended)
        if self._port is None:
            raise RuntimeError(f"the function did not start, exit code {process.wait(WAIT)}")

    @property
    def port(self) -> int:
        """Where on 127.0.0.1 it answers."""
        assert self._port is not None
        return self._port

    def get(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def log(self, part: str) -> str:
        """Wait for a message with this text in it, and return it."""
        found = self._wait(lambda: next((message for message in self.logs if part in message), None))
        assert isinstance(found, str)
        return found

    def _wait(self, condition: Callable[[], Any]) -> Any:
        with self._changed:
            answer = self._changed.wait_for(condition, WAIT)
            assert answer, f"not within {WAIT:g} s; the log so far:\n" + "\n".join(self.logs)
            return answer

    def _read(self, ipc: socket.socket) -> None:
        pending = b""
        with ipc:
            while data := ipc.recv(65536):
                *messages, pending = (pending + data).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        payload = message.get("payload", {})
        with self._changed:
            if message["type"] == "server-started":
                self._port = payload["httpPort"]
            elif message["type"] == "log":
                self.logs.append(base64.b64decode(payload["message"]).decode())
            elif message["type"] == "unrecoverable-error":
                self.logs.append(payload["message"])
            self._changed.notify_all()


@contextmanager
def running(
    folder: Path, python: Path, environment: Mapping[str, str], variables: Mapping[str, str]
) -> Iterator[Instance]:
    """Run the function that lies in a folder, with its own `environment` and what the project sets."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/ipc")
        listener.listen()
        listener.settimeout(WAIT)
        process = subprocess.Popen(
            [str(python), "vc__handler__python.py"],
            cwd=folder,
            env={
                "PATH": os.defpath,
                **environment,
                "VERCEL": "1",
                "VERCEL_ENV": "production",
                "VERCEL_REGION": "iad1",
                "VERCEL_IPC_PATH": f"{directory}/ipc",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        try:
            yield Instance(process, listener.accept()[0])
        finally:
            process.kill()
            process.wait()

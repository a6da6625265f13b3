"""AWS on this machine: moto's server, behind a door that runs `migrate` for real and tells who called what."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.deploy import tools
from tests.deploy.aws.bundle import python_packages, runtime_version
from tests.servers.aws import moto

_HOP = {"connection", "content-length", "expect", "host", "transfer-encoding", "accept-encoding"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}

Migrate = Callable[[Any], Any]


class Cloud:
    """One account, empty at first. `calls` lists what changed it, in order: `CreateStack`, `Invoke name`, ..."""

    def __init__(self, python: Path, packages: Path, backend: str) -> None:
        self.calls: list[str] = []
        self.migrate: Migrate | None = None  # what the function `migrate` does
        self.address = ""
        self._python, self._packages = python, packages
        self.backend = backend

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that lead osls and boto3 here."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.address, "AWS_MAX_ATTEMPTS": "1"}

    def ask(self, service: str, operation: str, key: str, *fields: str) -> list[list[Any]]:
        """Call the account past the door, as boto3 does it; return these fields of each thing under a key."""
        program = """
import boto3, json, sys
service, operation, key, fields = json.loads(sys.argv[1])
found = getattr(boto3.client(service), operation)()[key]
print(json.dumps([[one.get(field) for field in fields] for one in found], default=str))
"""
        done = subprocess.run(
            [str(self._python), "-S", "-c", program, json.dumps([service, operation, key, fields])],
            env={
                **CREDENTIALS,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": self.backend,
                "PYTHONPATH": str(self._packages),
                "PATH": os.environ["PATH"],
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[list[Any]] = json.loads(done.stdout)
        return found

    def functions(self) -> set[str]:
        """Return the names of the functions, without service and stage."""
        found = self.ask("lambda", "list_functions", "Functions", "FunctionName")
        return {name.rpartition("-")[2] for (name,) in found}

    def state(self) -> Any:
        """Return what a deploy changes: the stacks, and each function's code."""
        return (
            self.ask("cloudformation", "describe_stacks", "Stacks", "StackName", "StackStatus", "LastUpdatedTime"),
            self.ask("lambda", "list_functions", "Functions", "FunctionName", "CodeSha256", "LastModified"),
        )

    def reset(self) -> None:
        """Empty the account."""
        urllib.request.urlopen(urllib.request.Request(f"{self.backend}/moto-api/reset", method="POST")).close()
        self.calls.clear()
        self.migrate = None


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    cloud: Cloud

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        action = parse_qs(body.decode("latin-1")).get("Action", [""])[0] if body[:200].find(b"Action=") >= 0 else ""
        invoked = re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations", self.path)
        if invoked:
            self.cloud.calls.append(f"Invoke {invoked[1].rpartition('-')[2]}")
            assert self.cloud.migrate is not None
            answer = json.dumps(self.cloud.migrate(json.loads(body))).encode()
            self._reply(200, {"Content-Type": "application/json"}, answer)
            return
        if action == "ValidateTemplate":  # moto asks cfn-lint for it and takes its warnings for errors
            self._reply(200, {"Content-Type": "text/xml"}, _VALID)
            return
        if re.fullmatch(r"(Create|Update|Delete)Stack|ExecuteChangeSet", action):
            self.cloud.calls.append(action)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers["Host"] = self.headers["Host"]
        connection = HTTPConnection(self.cloud.backend.removeprefix("http://"), timeout=120)
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        status, answer = response.status, response.read()
        connection.close()
        if action == "DeleteChangeSet" and status == 500:  # there is none, which AWS does not mind and moto does
            status, answer = 200, _DELETED
        self._reply(status, dict(response.getheaders()), answer)

    def __getattr__(self, name: str) -> Any:
        """Handle every method alike: the server asks for do_GET, do_POST and so on."""
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


_VALID = b"""<ValidateTemplateResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
<ValidateTemplateResult><Parameters/></ValidateTemplateResult></ValidateTemplateResponse>"""

_DELETED = b"""<DeleteChangeSetResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
<DeleteChangeSetResult/></DeleteChangeSetResponse>"""


@contextmanager
def running(log_file: Path) -> Iterator[Cloud]:
    """Start it; it ends with the block. Raises tools.Missing."""
    python, packages = tools.python(runtime_version()), python_packages("aws-tools", "requirements-tools.txt")
    with ExitStack() as stack:
        cloud = Cloud(python, packages, stack.enter_context(moto(log_file, CREDENTIALS)))
        handler = type("Door", (_Door,), {"cloud": cloud})
        door = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        door.daemon_threads = True
        door.block_on_close = False
        cloud.address = f"http://127.0.0.1:{door.server_port}"
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield cloud
        finally:
            door.shutdown()
            thread.join()

"""AWS for the tests of credentials: moto's server, and one that answers with errors, late or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ops import aws_sdk
from ops.processes import die_with_parent
from tests.deploy import tools
from tests.deploy.aws.bundle import python_packages, runtime_version
from tests.servers.process import free_port, stop
from tests.shared.db.watching import until

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "eu-central-1"}


class Aws:
    """An account at `address`; `environment` leads boto3 there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._session: Any = None
        self.environment: Mapping[str, str] = {**KEYS, "AWS_ENDPOINT_URL": address}

    @contextmanager
    def client(self, service: str) -> Iterator[Any]:
        """Lend a client of boto3, for what the test itself does in the account."""
        if self._session is None:
            self._session = aws_sdk.module("boto3").session.Session(
                KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], region_name=KEYS["AWS_REGION"]
            )
        with closing(self._session.client(service, endpoint_url=self.address)) as client:
            yield client

    def create_secret(self, name: str, text: str) -> str:
        """Create a secret and return its ARN."""
        with self.client("secretsmanager") as client:
            return str(client.create_secret(Name=name, SecretString=text)["ARN"])

    def put(self, secret: str, text: str, stage: str) -> str:
        """Put a version with this stage and return its id."""
        with self.client("secretsmanager") as client:
            return str(client.put_secret_value(SecretId=secret, SecretString=text, VersionStages=[stage])["VersionId"])

    def stages(self, secret: str) -> dict[str, list[str]]:
        """Return each version's stages, of those that have any."""
        with self.client("secretsmanager") as client:
            found: dict[str, list[str]] = client.describe_secret(SecretId=secret)["VersionIdsToStages"]
        return {version: stages for version, stages in found.items() if stages}

    def read(self, secret: str, stage: str = "AWSCURRENT") -> str:
        """Return what a stage holds."""
        with self.client("secretsmanager") as client:
            return str(client.get_secret_value(SecretId=secret, VersionStage=stage)["SecretString"])


@contextmanager
def running(log_file: Path) -> Iterator[Aws]:
    """Run moto's server. Raises tools.Missing."""
    with moto(log_file, KEYS) as address:
        yield Aws(address)


@contextmanager
def moto(log_file: Path, keys: Mapping[str, str]) -> Iterator[str]:
    """Run moto's server with these keys, and give its address. Raises tools.Missing."""
    python, packages = tools.python(runtime_version()), python_packages("aws-tools", "requirements-tools.txt")
    port = free_port()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-S", "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
            env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"], **keys},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(address), timeout=60)
        yield address
    finally:
        stop(process)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def answering(answer: Callable[[str], tuple[int, Mapping[str, object]]]) -> Iterator[Aws]:
    """Run a server of which each answer is what `answer` gives for the operation: a status and an object."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, found = answer(str(self.headers["X-Amz-Target"]).rpartition(".")[2])
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield Aws(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()

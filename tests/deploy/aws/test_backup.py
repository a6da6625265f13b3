"""Backups in S3, as far as moto goes: made, read, listed, thinned out; errors, slow and cut connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops import aws_sdk
from ops.backup import archive, command, dump, manifest, retention, storage, verify
from ops.backup.storage import S3
from shared.errors import BackupError, LocalEnvironmentError
from shared.settings import reset_settings
from tests.deploy.aws import cloud
from tests.deploy.conftest import or_skip
from tests.ops.backup import database as contents
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.deploy

_HOP = {"connection", "content-length", "transfer-encoding"}


class Door:
    """What stands before moto and makes faults: `faults` holds, for the next requests that match, what happens."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.faults: list[tuple[str, str, str]] = []  # method, a part of the path, fault: 500, cut, slow
        self.seen: list[str] = []

    def fault_of(self, method: str, path: str) -> str | None:
        self.seen.append(f"{method} {path}")
        for fault in self.faults:
            if fault[0] == method and fault[1] in path:
                self.faults.remove(fault)
                return fault[2]
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    door: Door

    def _handle(self) -> None:
        fault = self.door.fault_of(self.command, self.path)
        if fault == "cut" and self.command != "GET":
            self.close_connection = True
            return
        body = self._body()
        if fault == "500":
            self._reply(500, {}, b"<Error><Code>InternalError</Code><Message>We failed</Message></Error>")
            return
        connection = HTTPConnection(self.door.backend.removeprefix("http://"), timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP | {"expect"}}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        self._reply(response.status, dict(response.getheaders()), answer, fault)

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None

    def _reply(self, status: int, headers: dict[str, str], body: bytes, fault: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "slow":
            for start in range(0, len(body), 4096):
                self.wfile.write(body[start : start + 4096])
                self.wfile.flush()
                threading.Event().wait(0.0002)
        else:
            self.wfile.write(body)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _door(backend: str) -> Iterator[tuple[Door, str]]:
    door = Door(backend)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"door": door})) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield door, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, str]]:
    with or_skip(), cloud.running(tmp_path_factory.mktemp("moto") / "log") as running, _door(running.backend) as door:
        yield door


@pytest.fixture
def door(moto: tuple[Door, str], monkeypatch: pytest.MonkeyPatch) -> Door:
    door, address = moto
    door.faults.clear()
    door.seen.clear()
    for name, value in cloud.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    return door


@pytest.fixture
def client(door: Door, moto: tuple[Door, str]) -> Any:
    return aws_sdk.module("boto3").client("s3", endpoint_url=moto[1])


@pytest.fixture
def bucket(client: Any, request: pytest.FixtureRequest) -> str:
    name = f"backups-{abs(hash(request.node.nodeid))}"
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def filled(postgres: Postgres) -> Iterator[str]:
    """Return a database whose dump takes several parts: S3's are 5 MB at least."""
    with postgres.database() as name:
        contents.fill(postgres, postgres.url(name))
        with psycopg.connect(postgres.url(name), autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE large AS SELECT sha512(i::text::bytea) AS x FROM generate_series(1, 120000) i"
            )
        yield postgres.url(name)


@pytest.fixture
def environment(filled: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PART_SIZE", 5 * 1024 * 1024)
    monkeypatch.setenv("DATABASE_URL", filled)
    reset_settings()


def keys(client: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", ())]


def test_there_and_back(
    environment: None, bucket: str, client: Any, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    where, made = dump.create(f"s3://{bucket}/nightly", report=print)

    assert where.startswith(f"s3://{bucket}/nightly/")
    assert made.size > 5 * 1024 * 1024
    assert sum("partNumber=" in request for request in door.seen) >= 2, "it was uploaded in parts"
    name = where.rpartition("/")[2]
    assert keys(client, bucket) == [f"nightly/{name}", f"nightly/{name}.json"]

    outcome = verify.verify(f"s3://{bucket}/nightly/", report=print)

    assert outcome.complete
    command.backups(f"s3://{bucket}/nightly", as_json=True)
    (listed,) = json.loads(capsys.readouterr().out.partition("\n[")[2].join(["[", ""]))
    assert listed["manifest"]["verified_at"] is not None
    dump.create(f"s3://{bucket}/nightly", report=print)
    place, _ = storage.locate(f"s3://{bucket}/nightly")
    assert retention.thin_out(place, name, {"d": 1}) == [], "the older one is the newest verified one"


@pytest.mark.parametrize("fault", ["500", "cut"])
@pytest.mark.parametrize(
    "request_", ["POST ?uploads", "PUT partNumber=1", "PUT partNumber=2", "POST ?uploadId", "PUT .json"]
)
def test_a_request_that_fails_once_is_tried_again(
    request_: str, fault: str, environment: None, bucket: str, door: Door
) -> None:
    method, part = request_.split()
    door.faults.append((method, part, fault))
    where, made = dump.create(f"s3://{bucket}", report=print)
    assert door.faults == []
    found = archive.find(where)
    assert (found.size, found.manifest) == (made.size, made)


@pytest.mark.parametrize("request_", ["PUT partNumber=2", "POST ?uploadId", "PUT .json"])
def test_an_upload_that_fails_for_good_leaves_nothing(
    request_: str, environment: None, bucket: str, client: Any, door: Door
) -> None:
    method, part = request_.split()
    door.faults += [(method, part, "500")] * 20
    with pytest.raises(BackupError, match="We failed"):
        dump.create(f"s3://{bucket}", report=print)
    assert keys(client, bucket) == []
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_the_upload_of_a_killed_backup_is_aborted_by_the_next(
    environment: None, bucket: str, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    where, _ = dump.create(f"s3://{bucket}", report=print)
    series = manifest.series_in(where.rpartition("/")[2])
    client.create_multipart_upload(Bucket=bucket, Key=f"{series}-20260101T000000Z.dump")
    client.create_multipart_upload(Bucket=bucket, Key="somebody-else.bin")
    dump.create(f"s3://{bucket}", report=print)
    assert f"Removed {series}-20260101T000000Z.dump" in capsys.readouterr().out
    uploads = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["somebody-else.bin"]


@pytest.mark.parametrize("fault", ["500", "cut", "slow"])
def test_reading_goes_on_after_a_fault(fault: str, environment: None, bucket: str, door: Door) -> None:
    where, made = dump.create(f"s3://{bucket}", report=print)
    place, name = storage.locate(where)
    assert isinstance(place, S3)
    assert name is not None
    door.faults.append(("GET", ".dump", fault))
    with place.read(name) as file:
        size = 0
        while chunk := file.read(1024 * 1024):
            size += len(chunk)
    assert size == made.size
    assert door.faults == []


def test_what_is_wrong_is_said(environment: None, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackupError, match=r"s3://no-such-bucket/ cannot be used: .*bucket does not exist"):
        dump.create("s3://no-such-bucket", report=print)
    with pytest.raises(BackupError, match=r"There is no backup in s3://"):
        verify.verify(f"s3://{bucket}/", report=print)
    with pytest.raises(LocalEnvironmentError, match="Google's library"):
        storage.locate("gs://bucket/x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(Path("nowhere")))
    with pytest.raises(LocalEnvironmentError, match="no credentials"):
        dump.create(f"s3://{bucket}", report=print)

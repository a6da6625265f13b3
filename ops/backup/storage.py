"""Where backups are kept: a folder, or a prefix in S3 or Google Cloud Storage. Nothing is staged on disk.

What `Place.write` writes appears under its name when it is complete, and not at all where writing fails or is killed.
Google's is the exception, where that was not tried; the manifest, which is written last, tells there as well.
"""

import errno
import importlib
import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from ops import aws_sdk
from shared.errors import BackupError, ConfigurationError, LocalEnvironmentError

_UNFINISHED = ".part"
# S3 takes 10,000 parts, so this bounds a dump to 625 GB; one part is held in memory.
_PART_SIZE = 64 * 1024 * 1024
_SUFFIXES = (".dump", ".backup", ".dmp", ".pgdump")
_CREDENTIALS = (
    "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; and AWS_ENDPOINT_URL_S3 where it is not AWS."
)


class Place(Protocol):
    """Files by name. Methods raise BackupError, LocalEnvironmentError and OSError."""

    @property
    def text(self) -> str:
        """Say where it is, as people write it."""

    def sizes(self) -> dict[str, int]:
        """Give the size of each file in bytes, by name."""

    def read(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file to read."""

    def write(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file to write: whole at the end of the block, discarded where an exception leaves it."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def discard_unfinished(self, prefix: str) -> list[str]:
        """Remove what killed writers left of files whose name begins with `prefix`; give their names."""


def locate(where: str) -> tuple[Place, str | None]:
    """Find the place that the text names, and the file, where it names one: `*.dump` and the like, or what is there."""
    scheme, separator, rest = where.partition("://")
    if not separator:
        path = Path(where).expanduser()
        if path.is_dir() or (not path.is_file() and (path.suffix not in _SUFFIXES or where.endswith(os.sep))):
            return Folder(path), None
        return Folder(path.parent), path.name
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "gs") or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise ConfigurationError(
            f"{scheme}://... is not where a backup can be.",
            solutions=["Give a file, a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."],
        )
    kind = S3 if scheme == "s3" else GoogleCloudStorage
    prefix, _, name = key.rpartition("/")
    if name.endswith(_SUFFIXES):
        return kind(bucket, prefix), name
    return kind(bucket, key.strip("/")), None


def read_all(place: Place, name: str) -> bytes:
    """Read a small file."""
    with place.read(name) as file:
        return file.read()


def write_all(place: Place, name: str, content: bytes) -> None:
    """Write a small file."""
    with place.write(name) as file:
        file.write(content)


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.text = str(path)

    def sizes(self) -> dict[str, int]:
        if not self._path.is_dir():
            return {}
        return {file.name: file.stat().st_size for file in self._path.iterdir() if file.is_file()}

    @contextmanager
    def read(self, name: str) -> Iterator[IO[bytes]]:
        with (self._path / name).open("rb") as file:
            yield file

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        self._path.mkdir(parents=True, exist_ok=True)
        unfinished = self._path / (name + _UNFINISHED)
        try:
            # What a dump holds is nobody else's to read.
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LocalEnvironmentError(
                    f"The disk that holds {self.text} is full. Nothing was kept of {name}.",
                    solutions=[
                        "Free some space: older backups? db backup --keep removes them.",
                        "Or name another place.",
                    ],
                ) from error
            raise
        unfinished.replace(self._path / name)
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, must outlast a power cut
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def discard_unfinished(self, prefix: str) -> list[str]:
        left = [name for name in self.sizes() if name.startswith(prefix) and name.endswith(_UNFINISHED)]
        for name in left:
            self.remove(name)
        return left


class S3:
    """A prefix in a bucket of S3, or of what speaks its protocol (AWS_ENDPOINT_URL_S3)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.text = f"s3://{bucket}/{self._prefix}"
        # Before smart_open, which looks for it when it is imported.
        boto3, config = aws_sdk.module("boto3"), aws_sdk.module("botocore.config")
        retries = {"total_max_attempts": 5, "mode": "standard"}
        with _explained(self.text):
            self._client = boto3.Session().client(
                "s3", config=config.Config(connect_timeout=10, read_timeout=60, retries=retries)
            )
        self._smart_open: Any = importlib.import_module("smart_open.s3")
        logging.getLogger("smart_open").setLevel(logging.CRITICAL + 1)  # it logs tracebacks of what it tries again
        self._smart_open.RETRY.attempts = 1  # boto3 has tried before

    def sizes(self) -> dict[str, int]:
        with _explained(self.text):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"
            )
            return {
                item["Key"][len(self._prefix) :]: item["Size"] for page in pages for item in page.get("Contents", ())
            }

    @contextmanager
    def read(self, name: str) -> Iterator[IO[bytes]]:
        with (
            _explained(self.text),
            self._smart_open.open(self._bucket, self._prefix + name, "rb", client=self._client) as file,
        ):
            yield file

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        # A multipart upload becomes an object when it is completed.
        with _explained(self.text):
            file = self._smart_open.open(
                self._bucket, self._prefix + name, "wb", client=self._client, min_part_size=_PART_SIZE
            )
            try:
                yield file
                file.close()
            except BaseException:
                file.terminate()  # it would not where closing fails
                raise

    def remove(self, name: str) -> None:
        with _explained(self.text):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def discard_unfinished(self, prefix: str) -> list[str]:
        left = []
        with _explained(self.text):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for upload in [upload for page in pages for upload in page.get("Uploads", ())]:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                left.append(upload["Key"][len(self._prefix) :])
        return left


class GoogleCloudStorage:
    """A prefix in a bucket of Google Cloud Storage. It was not tried against Google, nor against a stand-in."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket_name = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.text = f"gs://{bucket}/{self._prefix}"
        try:
            storage: Any = importlib.import_module("google.cloud.storage")
            self._smart_open: Any = importlib.import_module("smart_open.gcs")
        except ImportError as error:
            raise LocalEnvironmentError(
                "gs:// needs Google's library, which is not installed with this project.",
                solutions=["Install it: .venv/bin/pip install google-cloud-storage"],
            ) from error
        with _explained(self.text):
            self._client = storage.Client()

    def sizes(self) -> dict[str, int]:
        with _explained(self.text):
            blobs = self._client.list_blobs(self._bucket_name, prefix=self._prefix, delimiter="/")
            return {blob.name[len(self._prefix) :]: blob.size for blob in blobs}

    @contextmanager
    def read(self, name: str) -> Iterator[IO[bytes]]:
        with (
            _explained(self.text),
            self._smart_open.open(self._bucket_name, self._prefix + name, "rb", client=self._client) as file,
        ):
            yield file

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        with _explained(self.text):
            file = self._smart_open.open(self._bucket_name, self._prefix + name, "wb", client=self._client)
            try:
                yield file
            except BaseException:
                # Closing would complete the upload.
                if (terminate := getattr(file, "terminate", None)) is not None:
                    terminate()
                raise
            file.close()

    def remove(self, name: str) -> None:
        with _explained(self.text):
            self._client.bucket(self._bucket_name).blob(self._prefix + name).delete()

    def discard_unfinished(self, prefix: str) -> list[str]:  # noqa: ARG002 - Google forgets them after a week
        return []


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what the clouds' libraries raise into errors of ours; what the block itself raises passes."""
    try:
        yield
    except (io.UnsupportedOperation, ValueError, OSError) as error:
        # smart_open wraps the library's own error in these.
        if (cause := _of_a_cloud(error.__cause__) or _of_a_cloud(getattr(error, "backend_error", None))) is None:
            raise
        raise _translated(where, cause) from error
    except Exception as error:
        if _of_a_cloud(error) is None:
            raise
        raise _translated(where, error) from error


def _of_a_cloud(error: BaseException | None) -> BaseException | None:
    module = type(error).__module__
    return error if module.startswith(("botocore.", "boto3.", "s3transfer.", "urllib3.", "google.")) else None


def _translated(where: str, error: BaseException) -> BackupError | LocalEnvironmentError:
    name, text = type(error).__name__, " ".join(str(error).split())
    if name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"):
        return LocalEnvironmentError(f"There are no credentials for {where}: {text}", solutions=[_CREDENTIALS])
    return BackupError(
        f"{where} cannot be used: {text}",
        solutions=[
            "Check the bucket's name, its region and this account's rights: list, read, write and delete objects."
        ],
    )

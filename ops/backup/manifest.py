"""What is known of a backup: the manifest beside its dump, and the names of both."""

import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from shared.db.url import DatabaseURL
from shared.errors import BackupError

DUMP, MANIFEST = ".dump", ".dump.json"
_FORMAT = 1
_OURS = re.compile(r"(?P<series>.+-[0-9a-f]{6})-(?P<time>\d{8}T\d{6}Z)\.dump")


@dataclass(frozen=True)
class Manifest:
    """A backup's manifest. Sizes are bytes, times UTC in ISO 8601; `tables` has the rows of each table."""

    database: str
    host: str
    taken_at: str
    reason: str
    server_version: str
    pg_dump_version: str
    schema_head: str | None
    size: int
    sha256: str
    tables: dict[str, int]
    large_objects: int
    extensions: dict[str, str]
    owners: list[str]
    roles: list[str]
    verified_at: str | None = None
    verified_with: str | None = None

    @property
    def time(self) -> datetime:
        """Give when its snapshot was taken."""
        return datetime.fromisoformat(self.taken_at)

    def render(self) -> bytes:
        """Write it."""
        return (json.dumps({"format": _FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def parse(cls, text: bytes, name: str) -> "Manifest":
        """Read one. Raises BackupError where it is damaged or of a newer version of this command."""
        try:
            data: dict[str, Any] = json.loads(text)
            version = data.pop("format")
            if version != _FORMAT:
                raise BackupError(
                    f"{name} has format {version}, and this command knows format {_FORMAT}.",
                    solutions=["Use the version of this project that wrote it."],
                )
            manifest = cls(**data)
            manifest.time  # noqa: B018 - raises where it is no time
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackupError(
                f"{name} is damaged: it is not a manifest of `db backup`.",
                solutions=["Move it away: the dump is then treated as one that plain pg_dump made."],
            ) from error
        return manifest

    def verified(self, with_what: str) -> "Manifest":
        """Give it marked as verified just now."""
        return replace(self, verified_at=now().isoformat(), verified_with=with_what)


def now() -> datetime:
    """Give the time to whole seconds, as names and manifests have it."""
    return datetime.now(UTC).replace(microsecond=0)


def series_of(url: DatabaseURL) -> str:
    """Name the series that a database's backups belong to: databases of one name on two servers have two."""
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", url.database) or "database"
    return f"{readable}-{sha256(f'{url.host}:{url.port}/{url.database}'.encode()).hexdigest()[:6]}"


def name_of(series: str, time: datetime) -> str:
    """Name a dump."""
    return f"{series}-{time:%Y%m%dT%H%M%SZ}{DUMP}"


def series_in(name: str) -> str | None:
    """Give the series of a dump that we named; None for others."""
    match = _OURS.fullmatch(name)
    return match["series"] if match else None


def manifest_name(dump: str) -> str:
    """Name the manifest of a dump."""
    return f"{dump}.json"

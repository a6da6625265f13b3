"""Where `db rotate` keeps the new password beside the old one until it is known to work.

A vault holds texts as shared.db.credentials reads them: connection strings or JSON. What is pending survives kill -9,
so that the next `db rotate` finds it.
"""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from shared.db import aws
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, Refused


class Vault(Protocol):
    """`name` is for messages; `leaves_a_gap` tells whether somebody must act before clients know the new password."""

    name: str
    leaves_a_gap: bool

    def current(self) -> str:
        """Give what clients log in with."""
        ...

    def pending(self) -> str | None:
        """Give what a rotation under way will replace it with."""
        ...

    def stage(self, text: str) -> None:
        """Keep this as pending."""
        ...

    def promote(self) -> Sequence[str]:
        """Put what is pending in force; give what is left for a person to do."""
        ...

    def drop(self) -> None:
        """Forget what is pending."""
        ...


class Secret:
    """A secret of AWS Secrets Manager, and its stages."""

    leaves_a_gap = False  # clients try AWSPENDING where AWSCURRENT is refused

    def __init__(self, secret: str) -> None:
        self.name = secret
        self._store = aws.SecretsManager(secret)

    def current(self) -> str:
        """Read AWSCURRENT. Raises Refused where somebody else rotates this secret."""
        found = self._ask("describe_secret")
        if found.get("RotationEnabled") or found.get("OwningService"):
            raise Refused(
                f"AWS rotates {self.name} itself.",
                solutions=["Have it do so now: aws secretsmanager rotate-secret --secret-id NAME"],
            )
        return self._store.current()

    def pending(self) -> str | None:
        """Read AWSPENDING."""
        return self._store.pending()

    def stage(self, text: str) -> None:
        """Put a version with the stage AWSPENDING."""
        token = str(uuid.uuid4())
        self._ask("put_secret_value", SecretString=text, VersionStages=["AWSPENDING"], ClientRequestToken=token)

    def promote(self) -> Sequence[str]:
        """Move AWSCURRENT to the pending version, from which on it is not pending any more."""
        current, pending = self._version("AWSCURRENT"), self._version("AWSPENDING")
        if pending is not None and pending != current:
            self._move("AWSCURRENT", MoveToVersionId=pending, RemoveFromVersionId=current)
        self.drop()
        return ()

    def drop(self) -> None:
        """Take the stage AWSPENDING from its version: AWS takes it for a rotation that is still under way."""
        pending = self._version("AWSPENDING")
        if pending is not None:
            self._move("AWSPENDING", RemoveFromVersionId=pending)

    def _version(self, stage: str) -> str | None:
        versions: dict[str, list[str]] = self._ask("describe_secret")["VersionIdsToStages"]
        return next((version for version, stages in versions.items() if stage in stages), None)

    def _move(self, stage: str, **versions: str | None) -> None:
        self._ask("update_secret_version_stage", VersionStage=stage, **versions)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        action = "".join(word.capitalize() for word in operation.split("_"))
        with aws.explained(f"secretsmanager:{action}", self.name), aws.client("secretsmanager", self.name) as client:
            return getattr(client, operation)(SecretId=self.name, **arguments)


class File:
    """A file only its owner reads, beside what a person must change: .env, Vercel's variables, a parameter."""

    leaves_a_gap = True

    def __init__(self, name: str, path: Path, current: Callable[[], str], steps: Sequence[str]) -> None:
        self.name = name
        self.path = path
        self._current = current
        self._steps = steps

    def current(self) -> str:
        """Read what is in force."""
        return self._current()

    def pending(self) -> str | None:
        """Read the file."""
        try:
            return self.path.read_text("utf-8").strip()
        except FileNotFoundError:
            return None

    def stage(self, text: str) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)  # of one that was killed
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.path)

    def promote(self) -> Sequence[str]:
        """Tell what to do with the file."""
        return self._steps

    def drop(self) -> None:
        """Remove the file."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def with_login(text: str, user: str, password: str) -> str:
    """Put another user and password into a vault's text, and change nothing else in it. Raises ConfigurationError."""
    if text.lstrip().startswith("{"):
        fields = json.loads(text)
        if "DATABASE_URL" in fields:
            return json.dumps({**fields, "DATABASE_URL": with_login(fields["DATABASE_URL"], user, password)})
        return json.dumps({**fields, "username": user, "password": password})
    scheme, _, rest = text.strip().strip("\"'").partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in ("user", "password")]
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    changed = f"{scheme}://{login}@{authority.rpartition('@')[2]}{path}" + ("?" + "&".join(kept) if kept else "")
    before, after = DatabaseURL.parse(text), DatabaseURL.parse(changed)
    if (before.hosts, before.database, before.params) != (after.hosts, after.database, after.params):
        raise ConfigurationError(
            "The connection string does not name its database.", solutions=["Write /DATABASE behind host and port."]
        )
    return changed

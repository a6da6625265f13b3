"""What one look of the audit found, and what each look gets to see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shared.db.drivers import Connection
from shared.db.providers import role_of
from shared.db.url import DatabaseURL
from shared.settings import Settings

# unseen: this role may not look.
Verdict = Literal["ok", "warn", "fail", "unseen"]


@dataclass(frozen=True)
class Finding:
    """One item of the list: `sql` mends it, run by an administrator; `advice` is what SQL cannot mend."""

    name: str
    verdict: Verdict
    found: str
    sql: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A session of the application's role on the server itself, without the limits that we send, and its settings."""

    connection: Connection
    settings: Settings
    url: DatabaseURL  # what the application uses
    direct: DatabaseURL  # what the session uses

    @property
    def role(self) -> str:
        """Give the name of the application's role on the server."""
        return role_of(self.url)

    @property
    def is_exposed(self) -> bool:
        """Tell whether strangers may reach the server, as far as its address tells."""
        return not self.direct.is_local

    def setting(self, name: str) -> str:
        """Give a setting of the server as SHOW writes it."""
        return str(self.connection.fetch("SELECT current_setting(%(name)s) AS value", {"name": name})[0]["value"])


Look = Callable[[str, Subject], Finding]

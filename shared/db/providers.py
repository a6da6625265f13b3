"""What each host and port means: whose server it is, whether a pooler stands there, and how to reach the server itself.

One row a kind of address. Recognition is by name only; a pooler behind a plain name shows itself when it refuses or
drops our start-up options (connector.py).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from shared.db.url import DatabaseURL, Host

# none: the server itself, or a proxy that keeps one server connection for each of ours.
# session: a pooler that does so until we disconnect, and allows few of us.
# transaction: a pooler that may change the server connection after every transaction.
# rds_proxy: as transaction, but pins the connection to us, for good, when we touch session state.
Pooler = Literal["none", "session", "transaction", "rds_proxy"]

# What each kind forbids. We keep to it ourselves; an endpoint's own SQL must, too.
FORBIDS: Mapping[Pooler, str] = {
    "none": "nothing",
    "session": "many clients: it keeps a server connection for each",
    "transaction": "start-up options, named prepared statements, SET, session advisory locks, temporary tables, "
    "LISTEN, WITH HOLD cursors",
    "rds_proxy": "as transaction; each pins the connection, and so do cursors, and calls of nextval and setval",
}

_Direct = Callable[[DatabaseURL], DatabaseURL | None]


@dataclass(frozen=True)
class Provider:
    """One kind of address and what holds there."""

    name: str
    pooler: Pooler
    host: str = ""  # regular expression for the whole host name
    port: int | None = None
    # How to find the address of the server itself; None where the URL does not tell.
    direct: _Direct | None = None
    note: str = ""

    def matches(self, url: DatabaseURL) -> bool:
        """Tell whether this row describes the URL's first host."""
        if self.port is not None and url.port != self.port:
            return False
        return re.fullmatch(self.host, url.host.lower().rstrip(".")) is not None

    @property
    def keeps_session(self) -> bool:
        """Tell whether start-up options, SET, advisory locks and LISTEN last until we disconnect."""
        return self.pooler in ("none", "session")


def _without_pooler_suffix(url: DatabaseURL) -> DatabaseURL:
    hosts = tuple(replace(host, name=re.sub(r"-pooler(?=\.)", "", host.name, count=1)) for host in url.hosts)
    options = url.params.get("options")
    if options is not None:  # Neon's way for clients without SNI: options=endpoint=ep-...-pooler
        url = url.with_params(options=re.sub(r"(\bendpoint=[\w-]+?)-pooler\b", r"\1", options))
    return _without_hint(replace(url, hosts=hosts))


def _on_port(port: int) -> _Direct:
    def direct(url: DatabaseURL) -> DatabaseURL:
        return _without_hint(replace(url, hosts=tuple(Host(host.name, port) for host in url.hosts)))

    return direct


def _without_hint(url: DatabaseURL) -> DatabaseURL:
    return replace(url, hints={name: value for name, value in url.hints.items() if name != "pgbouncer"})


# In China and in some GovCloud endpoints the region stands behind `rds`.
_RDS = r"\.(.+\.)?rds\.([^.]+\.)?amazonaws\.com(\.cn)?"

# The first row that matches counts. The documentation's table of providers is checked against this one.
PROVIDERS: tuple[Provider, ...] = (
    Provider("Neon, pooled", "transaction", r"[^.]+-pooler\..*neon\.tech", direct=_without_pooler_suffix),
    Provider("Neon", "none", r".*\.neon\.tech", note="A database at rest takes up to a few seconds to wake."),
    Provider(
        "Vercel Postgres, pooled", "transaction", r"[^.]+-pooler\..*vercel-storage\.com",
        direct=_without_pooler_suffix,
    ),
    Provider("Vercel Postgres", "none", r".*\.vercel-storage\.com"),
    Provider(
        "Supabase, transaction pooler", "transaction", r".*\.pooler\.supabase\.com", 6543,
        direct=_on_port(5432), note="Its session pooler, on port 5432, is reachable over IPv4 and serves as direct.",
    ),
    Provider(
        "Supabase, session pooler", "session", r".*\.pooler\.supabase\.com",
        note="It allows few clients (MaxClientsInSessionMode): functions belong on port 6543.",
    ),
    Provider("Supabase, dedicated pooler", "transaction", r"db\..*\.supabase\.(co|com)", 6543, direct=_on_port(5432)),
    Provider("Supabase", "none", r"db\..*\.supabase\.(co|com)", note="Reachable over IPv6 only, without the add-on."),
    Provider(
        "DigitalOcean, connection pool", "transaction", r".*\.ondigitalocean\.com", 25061,
        note="The URL names the pool, not the database, so DIRECT_URL must be set.",
    ),
    Provider("DigitalOcean", "none", r".*\.ondigitalocean\.com"),
    Provider(
        "AWS RDS Proxy", "rds_proxy", r".*\.proxy-[^.]+" + _RDS,
        note="The URL does not tell the server, so DIRECT_URL must be set. Cancel requests are not passed on.",
    ),
    Provider("AWS Aurora", "none", r".*\.cluster-[^.]+" + _RDS),
    Provider("AWS RDS", "none", r".*" + _RDS),
    Provider("Azure, PgBouncer", "transaction", r".*\.postgres\.(database|cosmos)\.azure\.com", 6432, _on_port(5432)),
    Provider("Azure", "none", r".*\.postgres\.(database|cosmos)\.azure\.com"),
    Provider(
        "PgBouncer", "transaction", r".*", 6432,
        note="6432 is PgBouncer's own port, also at Google Cloud SQL and Railway; pgbouncer=false denies it.",
    ),
    Provider("Google Cloud SQL", "none", r"/cloudsql/.*|.*\.sql\.goog"),
    Provider("Railway", "none", r".*\.(railway\.internal|railway\.app|rlwy\.net)"),
    Provider("Render", "none", r"dpg-[^.]+(\..*render\.com)?"),
    Provider("PostgreSQL", "none", r".*"),
)  # fmt: skip

_HINTED = Provider("PgBouncer", "transaction", note="The URL says pgbouncer=true.")


def provider_of(url: DatabaseURL) -> Provider:
    """Find the row for a URL; `pgbouncer=true` or `false` in it beats what its address suggests."""
    found = next(provider for provider in PROVIDERS if provider.matches(url))
    hint = url.hints.get("pgbouncer")
    if hint == "true" and found.keeps_session:
        return replace(_HINTED, direct=found.direct)
    if hint == "false" and not found.keeps_session:
        return replace(found, pooler="none", note="The URL says pgbouncer=false.")
    return found


def direct_url(url: DatabaseURL) -> DatabaseURL | None:
    """Give the URL of the server itself, for locks, migrations and dumps; None where the address does not tell."""
    provider = provider_of(url)
    if provider.keeps_session:
        return url
    return provider.direct(url) if provider.direct else None


def better_for_functions(url: DatabaseURL) -> DatabaseURL | None:
    """Give the transaction pooler's URL where a session pooler stands, which has no room for many instances.

    None where the URL is fine, or where no better one can be told.
    """
    if provider_of(url).pooler != "session":
        return None
    better = replace(url, hosts=tuple(Host(host.name, 6543) for host in url.hosts))
    return better if provider_of(better).pooler == "transaction" else None


def role_of(url: DatabaseURL) -> str:
    """Give the role's name on the server: Supabase's shared pooler wants the project's behind a dot as well."""
    return url.user.partition(".")[0] if url.host.endswith(".pooler.supabase.com") else url.user

"""Which sslmode a connection gets, and which root certificates it is checked against."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

# From weak to strong (PostgreSQL manual 34.19.3).
STRENGTH = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# psycopg's wheels look for root certificates in a directory that no system has (psycopg issue 1476), so we name the
# system's own file: Debian and Vercel, Amazon Linux and Lambda, Alpine and macOS.
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def apply_policy(
    url: DatabaseURL, *, production_like: bool, force: bool, disable: bool, variable: str = "DATABASE_URL"
) -> DatabaseURL:
    """Settle the URL's sslmode by the guides' rule: at least `require` in production, unless switched off by name.

    `force` (DATABASE_SSL) and `disable` (DATABASE_DISABLE_SSL) beat the URL. A database on this machine needs no TLS.
    Raises ConfigurationError where both are set, or where a production URL asks for less than `require`.
    """
    if force and disable:
        raise ConfigurationError(
            "DATABASE_SSL and DATABASE_DISABLE_SSL are both true.",
            solutions=["Remove one of them: the first forces TLS, the second switches it off."],
        )
    if disable:
        return url.with_params(sslmode="disable", sslrootcert=None, sslnegotiation=None, channel_binding=None)
    mode = url.sslmode
    on_a_network = not url.is_local and not all(host.is_socket for host in url.hosts)
    needs_tls = force or (production_like and on_a_network)
    if needs_tls and mode is not None and not force and is_weak(mode):
        raise ConfigurationError(
            f"{variable} has sslmode={mode}, which may send the password and data unencrypted; "
            f"production needs sslmode=require or better.",
            solutions=[
                "Write sslmode=require, or sslmode=verify-full to check the server's certificate too.",
                "DATABASE_DISABLE_SSL=true switches TLS off; only for a network that you trust.",
            ],
        )
    if needs_tls and (mode is None or is_weak(mode)):
        mode = "require"
    return with_roots(url.with_params(sslmode=mode or "prefer"))


def is_weak(mode: str) -> bool:
    """Tell whether libpq may fall back to an unencrypted connection under this sslmode."""
    return STRENGTH.index(mode) < STRENGTH.index("require")


def with_roots(url: DatabaseURL, environ: Mapping[str, str] | None = None) -> DatabaseURL:
    """Name the system's root certificates where the URL wants them checked and names none that libpq would find."""
    roots = url.params.get("sslrootcert")
    wanted = roots == "system" or (roots is None and url.sslmode in ("verify-ca", "verify-full"))
    if not wanted:
        return url
    # Not Path.expanduser, which raises where there is no home, as for a container's nameless user.
    own = os.path.expanduser("~/.postgresql/root.crt")  # noqa: PTH111
    if roots is None and Path(own).exists():  # libpq's default; pg8000 needs to be told
        return url.with_params(sslrootcert=own)
    found = system_roots(os.environ if environ is None else environ)
    # libpq refuses sslrootcert=system with a weaker mode than verify-full, for good reason: keep that rule.
    mode = "verify-full" if roots == "system" else url.sslmode
    return url.with_params(sslrootcert=found or "system", sslmode=mode)


def system_roots(environ: Mapping[str, str]) -> str | None:
    """Find the file of root certificates that this system trusts, None where there is none."""
    candidates = (environ.get("SSL_CERT_FILE", ""), *SYSTEM_ROOTS)
    return next((path for path in candidates if path and Path(path).is_file()), None)


def ssl_context(url: DatabaseURL) -> "ssl.SSLContext | bool | None":
    """Turn sslmode into what pg8000 takes: False is plain, None tries TLS and falls back, a context insists.

    Raises ConfigurationError where the root certificates cannot be read.
    """
    import ssl  # here, because psycopg brings its own

    mode = url.sslmode or "prefer"
    if mode in ("disable", "allow"):
        return False
    if mode == "prefer":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    roots = url.params.get("sslrootcert")
    if mode == "require" and roots is None:
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        if roots in (None, "system"):
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=roots)
    except (OSError, ssl.SSLError) as error:
        raise unreadable_roots(url) from error
    return context


def check_roots(url: DatabaseURL) -> None:
    """Raise ConfigurationError where libpq would silently check nothing, since a file for `require` is not there."""
    roots = url.params.get("sslrootcert")
    if url.sslmode == "require" and roots not in (None, "system") and not Path(roots or "").is_file():
        raise unreadable_roots(url)


def unreadable_roots(url: DatabaseURL) -> ConfigurationError:
    """Give the error for a file of root certificates that is not there, or holds none."""
    return ConfigurationError(
        f"The file of root certificates {url.params.get('sslrootcert')} cannot be read, or holds no certificate.",
        solutions=["Correct sslrootcert in the URL, or leave it out to use the system's."],
    )

"""The certificates of the TLS server are good and bad in the way their names say."""

from __future__ import annotations

import psycopg
import pytest

from tests.servers.tls import TLSPostgres


def connect(server: TLSPostgres, **parameters: str) -> str | None:
    """Connect, and return the version of TLS."""
    defaults = {"sslmode": "verify-full", "sslrootcert": str(server.certificates.ca)}
    with psycopg.connect(server.postgres.admin_url(), **{**defaults, **parameters}) as connection:  # type: ignore[arg-type]
        row = connection.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert row is not None
    version: str | None = row[0]
    return version


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_good(tls_postgres: TLSPostgres, negotiation: str) -> None:
    assert connect(tls_postgres, sslnegotiation=negotiation) == "TLSv1.3"


def test_tls_is_offered_and_not_demanded(tls_postgres: TLSPostgres) -> None:
    assert connect(tls_postgres, sslmode="disable") is None


def test_expired(tls_postgres: TLSPostgres) -> None:
    tls_postgres.show(tls_postgres.certificates.expired)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(tls_postgres)
    assert connect(tls_postgres, sslmode="require", sslrootcert="") == "TLSv1.3"


def test_wrong_host(tls_postgres: TLSPostgres) -> None:
    tls_postgres.show(tls_postgres.certificates.wrong_host)
    with pytest.raises(psycopg.OperationalError, match=r'certificate for "db\.example\.com" does not match host name'):
        connect(tls_postgres)
    assert connect(tls_postgres, sslmode="verify-ca") == "TLSv1.3"


def test_other_ca(tls_postgres: TLSPostgres) -> None:
    tls_postgres.show(tls_postgres.certificates.other_ca)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(tls_postgres)
    assert connect(tls_postgres, sslrootcert=str(tls_postgres.certificates.other_authority)) == "TLSv1.3"

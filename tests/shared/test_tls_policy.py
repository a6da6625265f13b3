"""The guides' rule on TLS, and the root certificates that both drivers are given."""

import contextlib
from pathlib import Path

import pytest

from shared.db import tls
from shared.db.drivers import connect
from shared.db.url import DatabaseURL
from shared.errors import ConfigurationError, DatabaseUnavailable
from tests.servers.tls import TLSPostgres

REMOTE = "db.example.com"


def settled(
    query: str = "",
    *,
    host: str = REMOTE,
    production_like: bool = False,
    force: bool = False,
    disable: bool = False,
) -> DatabaseURL:
    url = DatabaseURL.parse(f"postgresql://u:p@{host}/db?{query}")
    return tls.apply_policy(url, production_like=production_like, force=force, disable=disable)


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the test a home without certificates, and no SSL_CERT_FILE."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.mark.parametrize(
    ("query", "production_like", "force", "sslmode"),
    [
        ("", False, False, "prefer"),
        ("", True, False, "require"),
        ("", False, True, "require"),
        ("sslmode=disable", False, False, "disable"),
        ("sslmode=disable", False, True, "require"),
        ("sslmode=prefer", True, True, "require"),
        ("sslmode=require", True, False, "require"),
        ("sslmode=verify-full&sslrootcert=/ca.pem", True, False, "verify-full"),
        ("sslmode=verify-full&sslrootcert=/ca.pem", True, True, "verify-full"),
        ("sslmode=verify-ca&sslrootcert=/ca.pem", False, True, "verify-ca"),
    ],
)
def test_the_sslmode_follows_the_rule(query: str, production_like: bool, force: bool, sslmode: str) -> None:
    assert settled(query, production_like=production_like, force=force).sslmode == sslmode


@pytest.mark.parametrize(
    "host",
    [REMOTE, f"127.0.0.1,{REMOTE}", "192.0.2.1", "[2001:db8::1]", "127.0.0.1.example.com", "localhost.example.com"],
)
def test_only_this_machine_may_do_without(host: str) -> None:
    assert settled(host=host, production_like=True).sslmode == "require"
    with pytest.raises(ConfigurationError, match="sslmode=allow"):
        settled("sslmode=allow", host=host, production_like=True)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]", "%2Ftmp", "%2Fcloudsql%2Fp"]
)
def test_this_machine_and_its_sockets_may_do_without(host: str) -> None:
    assert settled(host=host, production_like=True).sslmode == "prefer"
    assert settled("sslmode=disable", host=host, production_like=True).sslmode == "disable"


def test_the_variable_that_held_the_url_is_named() -> None:
    url = DatabaseURL.parse("postgresql://u:p@db.example.com/db?sslmode=disable")

    with pytest.raises(ConfigurationError, match=r"^DIRECT_URL has sslmode=disable"):
        tls.apply_policy(url, production_like=True, force=False, disable=False, variable="DIRECT_URL")


def test_what_contradicts_a_plain_connection_goes_with_tls() -> None:
    url = settled(
        "sslmode=verify-full&sslrootcert=system&sslnegotiation=direct&channel_binding=require&connect_timeout=3",
        disable=True,
        production_like=True,
    )

    assert url.params == {"sslmode": "disable", "connect_timeout": "3"}


# -- root certificates ------------------------------------------------------------------------------


def test_the_systems_roots_are_named_for_libpq(no_home: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))

    assert settled("sslmode=verify-full").params == {"sslmode": "verify-full", "sslrootcert": str(roots)}
    assert settled("sslmode=verify-ca").params == {"sslmode": "verify-ca", "sslrootcert": str(roots)}
    # libpq takes `system` with verify-full only, which it also is the default for.
    for query in ("sslrootcert=system", "sslmode=require&sslrootcert=system"):
        assert settled(query).params == {"sslmode": "verify-full", "sslrootcert": str(roots)}
    assert "sslrootcert" not in settled("sslmode=require").params
    assert settled("sslmode=verify-full&sslrootcert=/mine.pem").params["sslrootcert"] == "/mine.pem"


def test_libpqs_own_file_comes_first(no_home: None, tmp_path: Path) -> None:
    own = tmp_path / ".postgresql" / "root.crt"
    own.parent.mkdir()
    own.touch()

    assert settled("sslmode=verify-full").params["sslrootcert"] == str(own)


def test_a_user_without_a_home_has_no_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does for a user without a passwd entry

    assert settled("sslmode=verify-full").params["sslrootcert"]


def test_the_first_file_that_exists_holds_the_systems_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    monkeypatch.setattr(tls, "SYSTEM_ROOTS", (str(first), str(second)))
    assert tls.system_roots({}) is None
    assert tls.with_roots(DatabaseURL.parse("postgresql://h/db?sslmode=verify-full"), {}).params == {
        "sslmode": "verify-full",
        "sslrootcert": "system",
    }

    second.touch()
    assert tls.system_roots({}) == str(second)
    first.touch()
    assert tls.system_roots({}) == str(first)
    assert tls.system_roots({"SSL_CERT_FILE": str(second)}) == str(second)
    assert tls.system_roots({"SSL_CERT_FILE": str(tmp_path / "none.pem")}) == str(first)


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_both_drivers_trust_the_systems_roots(
    tls_postgres: TLSPostgres, no_home: None, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    certificates = tls_postgres.certificates
    url = DatabaseURL.parse(tls_postgres.postgres.url("postgres") + "?sslmode=verify-full")

    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    trusted = tls.apply_policy(url, production_like=True, force=False, disable=False)
    with contextlib.closing(connect(trusted, driver, connect_timeout=10)) as connection:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.fetch(query) == [{"ssl": True}]

    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.other_authority))
    untrusted = tls.apply_policy(url, production_like=True, force=False, disable=False)
    with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
        connect(untrusted, driver, connect_timeout=10)


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_roots_that_cannot_be_read_are_told(tls_postgres: TLSPostgres, tmp_path: Path, driver: str) -> None:
    text = f"{tls_postgres.postgres.url('postgres')}?sslmode=verify-full&sslrootcert={tmp_path}/none.pem"

    with pytest.raises((ConfigurationError, DatabaseUnavailable), match=r"none\.pem"):
        connect(DatabaseURL.parse(text), driver, connect_timeout=10)

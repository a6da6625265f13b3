"""TLS with real servers: what connects, what does not, and what the error says, with both drivers."""

import re
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import pytest

from shared import db, errors
from shared.errors import ConfigurationError, DatabaseUnavailable
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.proxy import WireProxy
from tests.servers.tls import Certificates, TLSPostgres
from tests.shared.db.conftest import Use
from tests.shared.db.watching import terminate

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture
def server(tls_postgres: TLSPostgres) -> Iterator[TLSPostgres]:
    """Return a server with TLS, and leave no connection to it."""
    yield tls_postgres
    db.close_db()


def connect_as(use: Use, server: TLSPostgres, query: str, host: str = "127.0.0.1") -> bool:
    """Connect, and return whether the connection is encrypted."""
    use(server.postgres.url("postgres").replace("127.0.0.1", host) + f"?{query}")
    with closing(db.open_connection()) as connection:
        return bool(connection.fetch(ENCRYPTED)[0]["ssl"])


def refusal(use: Use, server: TLSPostgres, query: str, host: str = "127.0.0.1") -> errors.Error:
    """Return the error of a connection that must fail, after a search for the password in all that hangs on it."""
    with pytest.raises(errors.Error) as caught:
        connect_as(use, server, query, host)
    assert_no_password(caught.value)
    return caught.value


# -- what connects ----------------------------------------------------------------------------------


def test_a_dead_connection_is_seen_through_tls_without_asking(use: Use, driver: str, server: TLSPostgres) -> None:
    use(server.postgres.url("postgres") + "?sslmode=require")
    pid = db.fetch_value("SELECT pg_backend_pid()")
    terminate(server.postgres, pid)
    assert db.fetch_value("SELECT pg_backend_pid()") != pid
    assert db.get_pool().statistics()["closed"] == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_each_mode_connects_with_the_given_root(
    use: Use, driver: str, server: TLSPostgres, mode: str, host: str
) -> None:
    assert connect_as(use, server, f"sslmode={mode}&sslrootcert={server.certificates.ca}", host)


@pytest.mark.parametrize("query", ["sslmode=verify-full", "sslmode=verify-ca", "sslrootcert=system"])
def test_it_connects_with_the_systems_roots(
    use: Use, driver: str, server: TLSPostgres, query: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificates.ca))
    assert connect_as(use, server, query)


@pytest.mark.parametrize(("query", "encrypted"), [("", True), ("sslmode=require", True), ("sslmode=disable", False)])
def test_without_a_root_nothing_is_checked(
    use: Use, driver: str, server: TLSPostgres, query: str, encrypted: bool
) -> None:
    server.show(server.certificates.expired)
    assert connect_as(use, server, query) is encrypted


def test_the_wrong_host_matters_to_verify_full_only(use: Use, driver: str, server: TLSPostgres) -> None:
    server.show(server.certificates.wrong_host)
    root = f"sslrootcert={server.certificates.ca}"

    assert connect_as(use, server, f"sslmode=verify-ca&{root}")
    error = refusal(use, server, f"sslmode=verify-full&{root}")
    assert isinstance(error, DatabaseUnavailable)
    assert re.search("does not match host name|mismatch", error.message)


# -- what does not ----------------------------------------------------------------------------------


def _show(server: TLSPostgres, certificate: str) -> None:
    server.show(getattr(server.certificates, certificate))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        # libpq hides the reason: expired and unknown authority are not told apart with psycopg.
        ("expired", "certificate has expired"),
        ("other_ca", "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_cannot_be_trusted_is_refused(
    use: Use, driver: str, server: TLSPostgres, certificate: str, reason: str, mode: str
) -> None:
    _show(server, certificate)
    # With a root, libpq checks under `require` too, and so does pg8000 here.
    error = refusal(use, server, f"sslmode={mode}&sslrootcert={server.certificates.ca}")

    assert isinstance(error, DatabaseUnavailable)
    assert "certificate verify failed" in error.message
    assert (reason in error.message) is (driver == "pg8000")


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_told(
    use: Use, driver: str, postgres: Postgres, certificates: Certificates, mode: str
) -> None:
    error = refusal(use, TLSPostgres(postgres, certificates), f"sslmode={mode}&sslrootcert={certificates.ca}")

    assert isinstance(error, DatabaseUnavailable)
    assert re.search("server does not support SSL, but SSL was required|Server refuses SSL", error.message)


@pytest.fixture
def only_with_tls(server: TLSPostgres) -> Iterator[TLSPostgres]:
    """Have the server take ordinary roles over TLS only."""
    file = server.postgres.server.data_dir / "pg_hba.conf"
    before = file.read_text()
    file.write_text("host all postgres 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    server.postgres.reload()
    yield server
    db.close_db()
    file.write_text(before)
    server.postgres.reload()


def test_a_server_that_wants_tls_says_so(use: Use, driver: str, only_with_tls: TLSPostgres) -> None:
    error = refusal(use, only_with_tls, "sslmode=disable")
    assert isinstance(error, DatabaseUnavailable)
    assert "no pg_hba.conf entry" in error.message
    assert "no encryption" in error.message

    assert connect_as(use, only_with_tls, "sslmode=require")
    assert connect_as(use, only_with_tls, "")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("text", [None, "this is no certificate\n", ""])
def test_roots_that_cannot_be_read_are_a_wrong_setting(
    use: Use, driver: str, server: TLSPostgres, tmp_path: Path, text: str | None, mode: str
) -> None:
    roots = tmp_path / "roots.pem"
    if text is not None:
        roots.write_text(text)
    error = refusal(use, server, f"sslmode={mode}&sslrootcert={roots}")

    assert isinstance(error, ConfigurationError)
    assert "roots.pem" in error.message
    assert "sslrootcert" in error.solutions[0]


def test_direct_tls_that_is_not_taken_any_more_is_given_up(use: Use, server: TLSPostgres, postgres: Postgres) -> None:
    with WireProxy("127.0.0.1", server.postgres.port) as proxy:
        use(proxy.url(server.postgres.url("postgres")) + "?sslmode=require")
        connector = db.get_connector()
        connector.open().close()
        with proxy.count() as direct:
            connector.open().close()

        proxy.target = ("127.0.0.1", postgres.port)  # as after a failover to a server without TLS
        with pytest.raises(DatabaseUnavailable, match="server does not support SSL"):
            connector.open()

        proxy.target = ("127.0.0.1", server.postgres.port)
        with proxy.count() as asked:
            connector.open().close()
        with proxy.count() as direct_again:
            connector.open().close()
    assert asked.flights == direct.flights + 1 == direct_again.flights + 1


# -- the password -----------------------------------------------------------------------------------


def forms_of(password: str) -> set[str]:
    """Return how a password looks in a text: as it is, in a URL, in a repr, as bytes."""
    return {password, quote(password, safe=""), repr(password)[1:-1], repr(password.encode())[2:-1]}


def assert_no_password(error: BaseException, password: str = APP_PASSWORD) -> None:
    """Search an error, what hangs on it, what caused it, and the locals of all frames of the code under test."""
    seen: list[str] = [*traceback.format_exception(error)]
    link: BaseException | None = error
    while link is not None:
        seen += [str(link), repr(link), repr(vars(link)), repr(link.args)]
        seen += [repr(getattr(link, name, None)) for name in ("pgconn", "pgresult", "diag")]
        seen += _locals(link.__traceback__)
        link = link.__cause__ or link.__context__
    for text in seen:
        for form in forms_of(password):
            assert form not in text


def _locals(frame: TracebackType | None) -> Iterator[str]:
    while frame is not None:
        if "/tests/" not in frame.tb_frame.f_code.co_filename:
            yield from map(repr, frame.tb_frame.f_locals.values())
        frame = frame.tb_next


def test_the_search_finds_a_password(postgres: Postgres) -> None:
    import psycopg

    url: dict[str, Any] = {"host": "127.0.0.1", "port": postgres.port, "user": "app", "password": "wr%ng"}
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(**url)
    with pytest.raises(AssertionError):
        assert_no_password(caught.value, "wr%ng")


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wr%25ng%20one"},
        {"database": "no-such-database"},
        {"port": "1"},
        {"host": "no-such-host.invalid"},
        {"host": "no-such-host.invalid:1,127.0.0.1", "password": "wr%25ng%20one"},
        {"query": "?sslmode=require"},
        {"query": "?options=-c%20no_such_setting%3D1"},
        {"query": "?connect_timeout=1&target_session_attrs=standby"},
    ],
    ids=str,
)
def test_no_error_of_a_failed_connection_shows_it(
    use: Use, driver: str, postgres: Postgres, wrong: dict[str, str]
) -> None:
    parts = {
        "password": quote(APP_PASSWORD, safe=""),
        "host": "127.0.0.1",
        "port": str(postgres.port),
        "database": "postgres",
        "query": "",
        **wrong,
    }
    use("postgresql://app:{password}@{host}:{port}/{database}{query}".format(**parts))

    with pytest.raises(errors.Error) as caught:
        db.open_connection()
    assert_no_password(caught.value)
    assert_no_password(caught.value, "wr%ng one")


def test_no_error_of_a_statement_shows_it(use: Use, driver: str, database: str, any_pgbouncer: PgBouncer) -> None:
    for url in (database, any_pgbouncer.url(database) + "?pgbouncer=true"):
        use(url)
        with pytest.raises(errors.DatabaseError) as caught:
            db.execute("SELECT 1 / 0")
        assert_no_password(caught.value)
        with pytest.raises(errors.DatabaseUnavailable) as lost:
            db.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert_no_password(lost.value)

"""The probe sees what is on the wire, in time, whatever answers."""

import socket
import socketserver
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from shared.db import scram
from shared.db.url import DatabaseURL, Host
from shared.db.wire_probe import probe
from tests.servers import binaries
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy
from tests.servers.tls import TLSPostgres
from tests.shared.db.provoke_connecting import listening


@pytest.fixture
def url(database: str) -> DatabaseURL:
    return DatabaseURL.parse(database)


def at(url: DatabaseURL, *ports: int) -> DatabaseURL:
    return replace(url, hosts=tuple(Host("127.0.0.1", port) for port in ports))


def test_what_works_has_no_trouble(url: DatabaseURL) -> None:
    seen = probe(url)
    assert (seen.trouble, seen.sqlstate) == ("", None)
    assert seen.steps == (
        "127.0.0.1 is 127.0.0.1",
        f"TCP to port {url.port} works",
        "it has no TLS",
        "connected and logged in",
    )


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_it_does_as_sslmode_says(tls_postgres: TLSPostgres, mode: str) -> None:
    url = DatabaseURL.parse(tls_postgres.postgres.url("postgres"))
    seen = probe(url.with_params(sslmode=mode, sslrootcert=str(tls_postgres.certificates.ca)))
    assert (seen.trouble, seen.is_encrypted) == ("", mode != "disable")
    assert ("TLS works (TLSv1.3)" in seen.steps) is (mode != "disable")


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("expired", "certificate has expired"),
        ("wrong_host", "certificate is not valid for '127.0.0.1'"),
        ("other_ca", "unable to get local issuer certificate"),
    ],
)
def test_it_tells_why_a_certificate_is_bad(tls_postgres: TLSPostgres, certificate: str, reason: str) -> None:
    tls_postgres.show(getattr(tls_postgres.certificates, certificate))
    url = DatabaseURL.parse(tls_postgres.postgres.url("postgres"))
    seen = probe(url.with_params(sslmode="verify-full", sslrootcert=str(tls_postgres.certificates.ca)))
    assert seen.trouble.startswith("certificate verify failed: ")
    assert reason in seen.trouble


def test_it_reads_the_sqlstate_that_libpq_hides(url: DatabaseURL) -> None:
    assert probe(replace(url, password="wrong")).sqlstate == "28P01"
    assert probe(replace(url, database="none")).sqlstate == "3D000"
    assert probe(replace(url, database="none")).trouble == 'database "none" does not exist'


@pytest.mark.parametrize("method", ["md5", "plain"])
def test_it_knows_the_passwords_of_poolers(pgbouncer_of: Callable[..., PgBouncer], database: str, method: str) -> None:
    pooler = pgbouncer_of(binaries.PGBOUNCERS[0], auth_type=method)
    seen = probe(DatabaseURL.parse(pooler.url(database)))
    if method == "md5":
        assert seen.trouble == ""
    else:  # in clear text only under TLS
        assert "does not know (3)" in seen.trouble


def test_a_pooler_in_between_is_fine(any_pgbouncer: PgBouncer, database: str) -> None:
    assert probe(DatabaseURL.parse(any_pgbouncer.url(database))).trouble == ""


def test_no_secret_is_seen(url: DatabaseURL) -> None:
    for changed in (url, replace(url, password="wrong"), at(url, free_port())):
        assert APP_PASSWORD not in repr(probe(changed))


def test_the_first_host_that_works_counts(url: DatabaseURL) -> None:
    refused = free_port()
    assert probe(at(url, refused, url.port)).trouble == ""
    assert probe(at(url, refused, refused)).trouble == "Connection refused"


# -- what answers strangely -------------------------------------------------------------------------


class _Says(socketserver.BaseRequestHandler):
    """A server that says one thing and waits."""

    words = b""

    def handle(self) -> None:
        self.request.sendall(self.words)
        while self.request.recv(100):
            pass


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers is not PostgreSQL"),
        (b"J\0\0\0\x0a8.0.36\0", "what answers is not PostgreSQL"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers is not PostgreSQL: HTTP"),
        (b"NR\0\0\0\x08\0\0\0\x63", "asks for a way to log in that the probe does not know (99)"),
        (b"NR\x7f\xff\xff\xff\0\0\0\0", "what answers is not PostgreSQL"),
        (b"NR\0\0\0\x0c\0\0\0\x0bnope", "SCRAM challenge is malformed"),
        (b"NE\0\0\0\x12C53300\0Mfull\0\0", "full"),
        (b"E\0\0\0\x12C53300\0Mfull\0\0", "full"),
    ],
)
def test_what_is_no_postgresql_is_told(url: DatabaseURL, words: bytes, trouble: str) -> None:
    handler = type("Handler", (_Says,), {"words": words})
    with listening(handler) as port:
        seen = probe(at(url, port), timeout=2)
    assert trouble in seen.trouble


@pytest.fixture
def silences(url: DatabaseURL) -> Iterator[list[DatabaseURL]]:
    """Return URLs at which nobody says anything: before TCP, after it, and after the start-up packet."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(full.getsockname()))
        silent = stack.enter_context(WireProxy("127.0.0.1", url.port))
        silent.silence()
        stalled = stack.enter_context(WireProxy("127.0.0.1", url.port))
        stalled.on("client", b"user", do="black hole")
        yield [at(url, full.getsockname()[1]), at(url, silent.port), at(url, stalled.port)]


def test_it_ends_in_time_and_tells_the_silences_apart(silences: list[DatabaseURL]) -> None:
    begun = time.monotonic()
    troubles = [probe(url, timeout=0.5).trouble for url in silences]
    assert troubles == ["timed out", *["the server accepts connections and says nothing"] * 2]
    # What is waited for is bounded by the probe: a lost bound would wait for minutes.
    assert time.monotonic() - begun < 30


def test_a_server_cut_off_in_the_middle_is_told(url: DatabaseURL) -> None:
    with WireProxy("127.0.0.1", url.port) as proxy:
        proxy.on("client", b"SCRAM-SHA-256", do="fin")
        assert "closed the connection" in probe(at(url, proxy.port)).trouble


def test_somebody_in_the_servers_place_is_found_out() -> None:
    client = scram.Client("password")
    nonce = client.first().decode().partition("r=")[2]
    client.final(f"r={nonce}x,s=c2FsdA==,i=4096".encode())
    assert not client.is_server(b"v=" + b"A" * 43 + b"=")


def test_it_counts_no_longer_than_a_server_may_ask(postgres: Postgres) -> None:
    client = scram.Client("password")
    nonce = client.first().decode().partition("r=")[2]
    with pytest.raises(OSError, match="malformed"):
        client.final(f"r={nonce}x,s=c2FsdA==,i=2000000000".encode())

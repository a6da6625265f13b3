"""Certificates for the tests: an authority, and server certificates that are good and bad in one way each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from tests.servers import postgres

EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)
SETTINGS = {"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}  # in the data directory


@dataclass(frozen=True)
class Certificate:
    """A certificate chain and its key, as PEM files."""

    certificate: Path
    key: Path


class Certificates:
    """Certificates of a server on localhost and 127.0.0.1, as files in `directory`; `ca` is what clients trust.

    `good`, `expired`, `wrong_host` (for db.example.com), `other_ca` (of an authority that is not `ca`).
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        authority, other = trustme.CA(), trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.other_authority = directory / "other-ca.pem"
        other.cert_pem.write_to_path(str(self.other_authority))
        local = ("localhost", "127.0.0.1")
        self.good = _write(directory / "good", authority.issue_cert(*local))
        self.expired = _write(directory / "expired", authority.issue_cert(*local, not_after=EXPIRED))
        self.wrong_host = _write(directory / "wrong-host", authority.issue_cert("db.example.com"))
        self.other_ca = _write(directory / "other-ca", other.issue_cert(*local))


class TLSPostgres:
    """A PostgreSQL with TLS on (but not demanded), and the certificates that it may show."""

    def __init__(self, server: postgres.Postgres, certificates: Certificates) -> None:
        self.postgres = server
        self.certificates = certificates
        self._shown = certificates.good

    def show(self, certificate: Certificate) -> None:
        """Have the server show another certificate to new connections."""
        if certificate != self._shown:
            _put(certificate, self.postgres.server.data_dir)
            self.postgres.reload()
            self._shown = certificate


@contextmanager
def running(major: int, directory: Path, certificates: Certificates) -> Iterator[TLSPostgres]:
    """Run a PostgreSQL that shows the good certificate."""

    def prepare(data_dir: Path) -> None:
        _put(certificates.good, data_dir)

    with postgres.running(major, directory, SETTINGS, prepare) as server:
        yield TLSPostgres(server, certificates)


def _put(certificate: Certificate, data_dir: Path) -> None:
    """Copy a certificate to where SETTINGS says; the server wants to own its key, and nobody else to read it."""
    owner = data_dir.stat()
    for source, name in ((certificate.certificate, "server.crt"), (certificate.key, "server.key")):
        target = data_dir / name
        shutil.copyfile(source, target)
        shutil.chown(target, owner.st_uid, owner.st_gid)
        target.chmod(0o600)


def _write(path: Path, leaf: trustme.LeafCert) -> Certificate:
    certificate, key = path.with_suffix(".crt"), path.with_suffix(".key")
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    leaf.private_key_pem.write_to_path(str(key))
    return Certificate(certificate, key)

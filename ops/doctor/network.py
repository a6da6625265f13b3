"""The way to the server, one layer a step: name, TCP, TLS.

Each step looks by itself, with the standard library, so that the one that fails is the one that is named. Why it failed
is then said by the table of diagnoses.
"""

import contextlib
import ipaddress
import socket
import ssl
import struct
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from ops.doctor.step import Step
from shared.db import tls
from shared.db.url import DatabaseURL, Host

EXPIRES_SOON = 21  # days; authorities renew from 30 days before the end on
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # PostgreSQL manual 54.2.11


class Unreachable(Exception):
    """A layer does not work; the step says which."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step
        self.reason = reason


def steps(url: DatabaseURL, timeout: float) -> Iterator[Step]:
    """Look at name, TCP and TLS of the first host that answers. Raises Unreachable where none does."""
    if url.hosts[0].is_socket:
        yield _unix_socket(url.hosts[0])
        return
    addresses = {host: _resolve(host) for host in url.hosts}
    yield _named(addresses)
    host, address = yield from _dial(addresses, timeout)
    if url.sslmode in ("disable", "allow"):
        plain = "Not encrypted: the URL or DATABASE_DISABLE_SSL switches TLS off."
        yield Step("TLS", "ok" if url.is_local else "warn", plain, () if url.is_local else (_ASK_FOR_TLS,))
        return
    yield _encrypt(url, host, address, timeout)


_ASK_FOR_TLS = "Add sslmode=require to the URL, or verify-full to check the certificate too."


def _unix_socket(host: Host) -> Step:
    path = f"{host.name}/.s.PGSQL.{host.port}"
    if not Path(path).exists():
        raise Unreachable("Socket", f"{path} does not exist")
    return Step("Socket", "ok", f"{path} is there; DNS, TCP and TLS do not apply.")


def _resolve(host: Host) -> list[str]:
    """Give a host's addresses, as the system's own resolver orders them: A and AAAA."""
    try:
        found = socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _named(addresses: dict[Host, list[str]]) -> Step:
    if not any(addresses.values()):
        names = ", ".join(host.name for host in addresses)
        raise Unreachable("DNS", f"{names} has neither an A nor an AAAA record here")
    parts, solutions = [], []
    for host, found in addresses.items():
        if not found:
            parts.append(f"{host.name} has no address")
            solutions.append(f"Correct {host.name} in the URL, or remove it.")
            continue
        if _is_address(host.name):
            parts.append(f"{host.name} is an address")
            continue
        records = [f"{'AAAA' if ':' in address else 'A'} {address}" for address in found]
        parts.append(f"{host.name}: {', '.join(records)}")
        if all(":" in address for address in found):
            solutions.append(
                f"{host.name} has IPv6 addresses only, which neither Vercel nor Lambda outside a VPC with IPv6 "
                "reaches: use the provider's pooler, or its IPv4 add-on."
            )
    return Step("DNS", "warn" if solutions else "ok", "; ".join(parts), tuple(solutions))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _dial(addresses: dict[Host, list[str]], timeout: float) -> Generator[Step, None, tuple[Host, str]]:
    """Connect to each address; yields the step, and gives the first that answers."""
    first: tuple[Host, str] | None = None
    silent = []
    for host, found in addresses.items():
        for address in found:
            try:
                socket.create_connection((address, host.port), timeout).close()
            except OSError as error:
                reason = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
                silent.append(f"{address}:{host.port}: {reason}")
                continue
            first = first or (host, address)
    if first is None:
        raise Unreachable("TCP", "; ".join(silent))
    host, address = first
    answers = f"{address} answers on port {host.port}"
    if silent:
        yield Step("TCP", "warn", f"{answers}, but not {', '.join(silent)}", (_SOME_SILENT,))
    else:
        yield Step("TCP", "ok", answers)
    return host, address


_SOME_SILENT = "A client that tries that address first waits for it; remove it, or open the firewall for it."


def _encrypt(url: DatabaseURL, host: Host, address: str, timeout: float) -> Step:
    """Make a TLS connection as the URL asks, and look at the certificate. Raises Unreachable."""
    context = tls.ssl_context(url)
    insists = isinstance(context, ssl.SSLContext)
    if not isinstance(context, ssl.SSLContext):
        context = _unchecking()
    try:
        encrypted = _handshake(context, host, address, timeout)
    except ssl.SSLError as error:
        raise Unreachable("TLS", getattr(error, "verify_message", None) or str(error.reason or error)) from None
    except OSError as error:
        raise Unreachable("TLS", error.strerror or str(error) or type(error).__name__) from None
    if encrypted is None:
        if insists:
            raise Unreachable("TLS", "the server does not support TLS")
        plain = "The server has no TLS: passwords and data travel in plain text."
        return Step("TLS", "ok" if url.is_local else "warn", plain, () if url.is_local else ("Switch TLS on there.",))
    with encrypted:
        version, der = encrypted.version(), encrypted.getpeercert(binary_form=True)
    assert der is not None  # a server always shows one
    checks = url.sslmode == "verify-full" or _would_verify(url, host, address, timeout)
    return _judge(url, host, checks, version, x509.load_der_x509_certificate(der))


def _unchecking() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _handshake(context: ssl.SSLContext, host: Host, address: str, timeout: float) -> ssl.SSLSocket | None:
    """Ask for TLS and shake hands; None where the server has none."""
    connection = socket.create_connection((address, host.port), timeout)
    try:
        connection.sendall(_SSL_REQUEST)
        answer = connection.recv(1)
        if answer == b"S":
            return context.wrap_socket(connection, server_hostname=host.name)
        if answer == b"N":
            connection.close()
            return None
        raise OSError("what answers does not speak PostgreSQL's protocol")
    except BaseException:
        connection.close()
        raise


def _judge(url: DatabaseURL, host: Host, checks: bool, version: str | None, certificate: x509.Certificate) -> Step:
    names = _names_of(certificate)
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    said = f"{version}; the certificate is for {', '.join(names) or 'nobody'}, valid until {_date(certificate)}"
    if days < EXPIRES_SOON:
        when = "has expired" if days < 0 else f"expires in {days} days"
        renew = (f"Renew the certificate of {host.name}: it {when}.",)
        return Step("TLS", "warn", f"{said}; it {when}", renew)
    if url.sslmode == "verify-full":
        return Step("TLS", "ok", f"{said}; authority and name are checked")
    if checks:
        advice = () if url.is_local else ("sslmode=verify-full works here, and also checks who answers.",)
        return Step("TLS", "ok", f"{said}; not checked (sslmode={url.sslmode or 'prefer'})", advice)
    private = f"{said}; not checked (sslmode={url.sslmode or 'prefer'}), its authority or name is not known here"
    return Step("TLS", "ok", private)


def _would_verify(url: DatabaseURL, host: Host, address: str, timeout: float) -> bool:
    context = tls.ssl_context(tls.with_roots(url.with_params(sslmode="verify-full")))
    assert isinstance(context, ssl.SSLContext)
    with contextlib.suppress(OSError):
        encrypted = _handshake(context, host, address, timeout)
        if encrypted is not None:
            encrypted.close()
            return True
    return False


def _names_of(certificate: x509.Certificate) -> list[str]:
    with contextlib.suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return [str(part.value) for part in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]


def _date(certificate: x509.Certificate) -> str:
    return certificate.not_valid_after_utc.date().isoformat()

"""The way in: is it encrypted, must it be, and who may come at all."""

import socket
import struct

from ops.audit.finding import Finding, Look, Subject
from shared.db.tls import is_weak
from shared.db.url import DatabaseURL

_TIMEOUT = 5.0  # seconds
_EVERYBODY = ("all", "0.0.0.0", "::")  # noqa: S104 - of pg_hba.conf's addresses; the last two with a mask of the same
_RULES = (
    "SELECT line_number AS line, type, address, netmask, auth_method AS method, error FROM pg_hba_file_rules"
    " ORDER BY line_number"
)


def _encrypted(name: str, subject: Subject) -> Finding:
    row = subject.connection.fetch("SELECT ssl, version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    if row and row[0]["ssl"]:
        mode = subject.url.sslmode or "prefer"
        said = f"{row[0]['version']}, {row[0]['cipher']}; sslmode={mode}"
        if is_weak(mode):
            advice = "Write sslmode=require, or verify-full, in DATABASE_URL: this one falls back to plain text."
            return Finding(name, "warn", said, advice=(advice,))
        return Finding(name, "ok", said)
    if not subject.is_exposed:
        return Finding(name, "ok", "Not encrypted, and on this machine alone")
    advice = "Write sslmode=require, or verify-full, in DATABASE_URL; a server without TLS needs a certificate first."
    return Finding(name, "fail", "Not encrypted: whoever is on the way reads and changes it", advice=(advice,))


def _enforced(name: str, subject: Subject) -> Finding:
    """Knock without TLS, as far as the server's first word: no password is sent."""
    urls = {f"{url.host}:{url.port}": url for url in (subject.url, subject.direct)}
    plain = [place for place, url in urls.items() if _takes_plain(url)]
    if not plain:
        return Finding(name, "ok", "A client without TLS is refused")
    where = ", ".join(plain)
    if not subject.is_exposed:
        return Finding(name, "ok", f"{where} takes clients without TLS, on this machine alone")
    sql = () if subject.setting("ssl") == "on" else ("ALTER SYSTEM SET ssl = on;",)
    advice = (
        "Write hostssl in the place of host in pg_hba.conf, then: SELECT pg_reload_conf();",
        "AWS RDS: rds.force_ssl = 1 in the parameter group. Other providers: enforce SSL in the console.",
    )
    return Finding(name, "fail", f"{where} takes clients without TLS", sql, advice)


def _takes_plain(url: DatabaseURL) -> bool:
    """Send a start-up packet without TLS (manual 54.2.1); what takes it asks for a password or lets us in."""
    if url.hosts[0].is_socket:
        return False
    body = struct.pack("!i", 196608) + f"user\0{url.user}\0database\0{url.database}\0\0".encode()
    try:
        with socket.create_connection((url.host, url.port), timeout=_TIMEOUT) as knock:
            knock.sendall(struct.pack("!i", len(body) + 4) + body)
            return knock.recv(1) == b"R"
    except OSError:
        return False


def _listens(name: str, subject: Subject) -> Finding:
    addresses = subject.setting("listen_addresses")
    if {part.strip() for part in addresses.split(",")} & {"*", "0.0.0.0", "::"}:  # noqa: S104
        advice = "At a provider its firewall or private network decides; of your own server name the addresses."
        sql = "ALTER SYSTEM SET listen_addresses = '127.0.0.1'; -- or the private network's; then restart"
        return Finding(name, "warn", f"{addresses}: on every network that the machine has", (sql,), (advice,))
    return Finding(name, "ok", addresses or "On no network, a Unix socket alone")


def _allowed(name: str, subject: Subject) -> Finding:
    rules = subject.connection.fetch(_RULES)
    wide = [
        rule for rule in rules
        if rule["type"] != "local" and rule["method"] != "reject" and rule["address"] in _EVERYBODY
        and rule["netmask"] in (None, *_EVERYBODY)
    ]  # fmt: skip
    if not wide:
        return Finding(name, "ok", "pg_hba.conf names the networks that may come")
    lines = ", ".join(str(rule["line"]) for rule in wide)
    advice = "Put the networks of your functions there, or a firewall before it, then: SELECT pg_reload_conf();"
    return Finding(name, "warn", f"Every address may come: pg_hba.conf, lines {lines}", advice=(advice,))


def _methods(name: str, subject: Subject) -> Finding:
    rules = [rule for rule in subject.connection.fetch(_RULES) if rule["type"] is not None]
    open_door = [rule for rule in rules if rule["method"] == "trust"]
    weak = [rule for rule in rules if rule["method"] in ("md5", "password", "ident")]
    if not open_door and not weak:
        return Finding(name, "ok", "pg_hba.conf has no trust, md5, password or ident")
    said = "; ".join(f"line {rule['line']}: {rule['type']} {rule['method']}" for rule in (*open_door, *weak))
    advice = "Write scram-sha-256 there (peer for local), then: SELECT pg_reload_conf();"
    return Finding(name, "fail" if open_door else "warn", said, advice=(advice,))


LOOKS: tuple[tuple[str, Look], ...] = (
    ("Encryption", _encrypted),
    ("TLS enforced", _enforced),
    ("Listen addresses", _listens),
    ("Allow list", _allowed),
    ("Authentication", _methods),
)

"""What servers that no test can have here are known to say, and a server that says it again.

Sources: Supavisor's lib/supavisor/errors; Neon's documentation, "Connection errors"; the Amazon RDS user guide,
"Troubleshooting for RDS Proxy"; PgBouncer's source; PostgreSQL's translations (de.po).
"""

import socketserver
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.shared.db.provoke_connecting import listening

SSL_REQUEST = 80877103


class Recorded(NamedTuple):
    """One text: the diagnosis that it gets, the SQLSTATE that it comes with, and the words."""

    code: str
    sqlstate: str
    text: str


RECORDED = (
    Recorded("pooler_session_mode_full", "XX000", "MaxClientsInSessionMode: max clients reached - in Session mode max "
             "clients are limited to pool_size"),
    Recorded("pooler_session_mode_full", "XX000", "(EMAXCONNSESSION) max clients reached in session mode - max clients "
             "are limited to pool_size: 15"),
    Recorded("pooler_too_many_clients", "XX000", "(EMAXCONN) max client connections reached, limit: 200"),
    Recorded("pooler_too_many_clients", "XX000", "Max client connections reached"),
    Recorded("pooler_no_free_connection", "XX000", "(ECHECKOUTTIMEOUT) Pool checkout timeout. Request was dropped "
             "after 60000ms in Transaction mode."),
    Recorded("ssl_required", "XX000", "(ESSLREQUIRED) SSL connection is required for user: postgres"),
    Recorded("supabase_tenant_not_found", "XX000", "Tenant or user not found"),
    Recorded("supabase_tenant_not_found", "XX000", "(ENOTFOUND) tenant/user postgres.abcdef not found"),
    Recorded("supabase_tenant_not_found", "XX000", "(ENOIDENTIFIER) no tenant identifier provided (external_id or "
             "sni_hostname required)"),
    Recorded("supabase_blocked", "XX000", "(ECIRCUITBREAKER) too many authentication failures, new connections are "
             "temporarily blocked"),
    Recorded("neon_endpoint_disabled", "XX000", "The endpoint has been disabled. Enable it using Neon API and retry."),
    Recorded("neon_quota_exceeded", "XX000", "Your account or project has exceeded the compute time quota. Upgrade "
             "your plan to increase limits."),
    Recorded("neon_compute_unreachable", "XX000", "Couldn't connect to compute node"),
    Recorded("neon_compute_unreachable", "08006", "Control plane request failed"),
    Recorded("neon_endpoint_id_missing", "XX000", "Endpoint ID is not specified. Either upgrade the Postgres client "
             "library (libpq) for SNI support or pass the endpoint ID as a parameter"),
    Recorded("ssl_required", "XX000", "connection is insecure (try using `sslmode=require`)"),
    Recorded("invalid_password", "28P01", "password authentication failed for user 'neondb_owner'"),
    # No SQLSTATE is documented for these.
    Recorded("rds_proxy_no_credentials", "XX000", "This RDS proxy has no credentials for the role app. Check the "
             "credentials for this role and try again."),
    Recorded("invalid_password", "XX000", "The password that was provided for the role app is wrong."),
    Recorded("rds_iam_failed", "XX000", "The IAM authentication failed for the role app. Check the IAM token for this "
             "role and try again."),
    Recorded("ssl_required", "XX000", "This RDS Proxy requires TLS connections."),
    Recorded("pooler_too_many_clients", "XX000", "The maximum number of client connections to the proxy exceeded 90."),
    Recorded("pooler_no_free_connection", "XX000", "Timed-out waiting to acquire database connection."),
    Recorded("unsupported_startup_parameter", "XX000", "Feature not supported: RDS Proxy currently doesn't support "
             "the option geqo."),
    Recorded("pooler_cannot_log_in", "08P01", "server login has been failing, try again later (server_login_retry)"),
    Recorded("pooler_cannot_log_in", "08P01", "pgbouncer cannot connect to server"),
)  # fmt: skip

# Their SQLSTATE tells the condition, whatever the language; through psycopg only the wire has it.
TRANSLATED = (
    Recorded("too_many_connections", "53300", "tut mir leid, schon zu viele Verbindungen"),
    Recorded("cannot_connect_now", "57P03", "das Datenbanksystem startet"),
    Recorded("invalid_authorization_specification", "28000", "Rolle »x« hat keine Berechtigung zum Einloggen"),
    Recorded("invalid_password", "28P01", "Passwort-Authentifizierung für Benutzer »x« fehlgeschlagen"),
    Recorded("invalid_catalog_name", "3D000", "Datenbank »x« existiert nicht"),
)


@contextmanager
def replaying(recorded: Recorded) -> Iterator[int]:
    """Run a server without TLS that answers every start-up packet with this error; yield its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for _ in range(2):
                size, kind = struct.unpack("!ii", self.rfile.read(8))
                self.rfile.read(size - 8)
                if kind != SSL_REQUEST:
                    break
                self.wfile.write(b"N")
            fields = {"S": "FATAL", "V": "FATAL", "C": recorded.sqlstate, "M": recorded.text}
            content = "".join(f"{name}{value}\0" for name, value in fields.items()).encode() + b"\0"
            self.wfile.write(b"E" + struct.pack("!i", len(content) + 4) + content)

    with listening(Handler) as port:
        yield port

"""Failures of connecting: who may log in, whether there is room, whether anybody is there."""

import http.server
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg

from shared.db.url import DatabaseURL, Host
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy
from tests.shared.db.provoke import CANARY, LIBPQ, ROOM, Attempt, Stage, provokes

UNTOLD = ("connection_failure", "connection_timeout")

# -- who may log in ---------------------------------------------------------------------------------


@provokes("invalid_password")
def wrong_password(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(replace(stage.url(), password=CANARY))


@provokes("invalid_password")
def unknown_role(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(replace(stage.at(stage.plain, database="postgres"), user="nobody_known"))


@provokes("invalid_password")
def wrong_password_at_a_pooler(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(replace(stage.through(stage.pooler("patient")), password=CANARY))


@provokes("no_password")
def no_password(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(replace(stage.url(), password=None))


@provokes("role_may_not_log_in")
def nologin(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("retired"))


@provokes("no_pg_hba_entry")
def no_entry(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("unlisted"))


@provokes("no_pg_hba_entry")
def no_entry_in_plain_text(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("unlisted", sslmode="disable"))


@provokes("ssl_required", vaguely=("no_pg_hba_entry",))
def only_with_tls(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("tlsonly", sslmode="disable"))


@provokes("pg_hba_rejects")
def rejected(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("rejected"))


@provokes("invalid_catalog_name")
def unknown_database(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url(database="no such database"))


@provokes("may_not_connect")
def no_connect_right(stage: Stage, attempt: Attempt) -> None:
    stage.strict.admin().execute("REVOKE CONNECT ON DATABASE app FROM PUBLIC")
    attempt.defer(lambda: stage.strict.admin().execute("GRANT CONNECT ON DATABASE app TO PUBLIC"))
    attempt.connect(stage.url("guest"))


@provokes("database_closed")
def closed_database(stage: Stage, attempt: Attempt) -> None:
    stage.strict.admin().execute("ALTER DATABASE app ALLOW_CONNECTIONS false")
    attempt.defer(lambda: stage.strict.admin().execute("ALTER DATABASE app ALLOW_CONNECTIONS true"))
    attempt.connect(stage.url())


# -- is there room ----------------------------------------------------------------------------------


@provokes("too_many_connections_for_role")
def role_limit(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("limited"))
    attempt.connect(stage.url("limited"))


@provokes("too_many_connections_for_database")
def database_limit(stage: Stage, attempt: Attempt) -> None:
    stage.strict.admin().execute("ALTER DATABASE app CONNECTION LIMIT 0")
    attempt.defer(lambda: stage.strict.admin().execute("ALTER DATABASE app CONNECTION LIMIT -1"))
    attempt.connect(stage.url())


@provokes("too_many_connections")
def no_slot_for_an_ordinary_role(stage: Stage, attempt: Attempt) -> None:
    stage.strict.admin()  # whoever cleans up afterwards is connected already
    for _ in range(ROOM):
        attempt.connect(stage.url())


@provokes("too_many_connections")
def no_slot_at_all(stage: Stage, attempt: Attempt) -> None:
    stage.strict.admin()
    with suppress(psycopg.OperationalError):
        for _ in range(ROOM + 1):
            connection = psycopg.connect(stage.strict.admin_url())
            attempt.defer(connection.close)
    attempt.connect(stage.url())


# -- is it ready ------------------------------------------------------------------------------------


def _connect_to_recovering(stage: Stage, attempt: Attempt, **settings: str) -> None:
    attempt.connect(stage.at_port(stage.url(), attempt.keep(stage.recovering(**settings))))


@provokes("server_starting")
def starting(stage: Stage, attempt: Attempt) -> None:
    _connect_to_recovering(stage, attempt, restore_command="sleep 3; false")


@provokes("standby_not_ready")
def inconsistent_standby(stage: Stage, attempt: Attempt) -> None:
    _connect_to_recovering(stage, attempt)


@provokes("hot_standby_disabled")
def cold_standby(stage: Stage, attempt: Attempt) -> None:
    _connect_to_recovering(stage, attempt, hot_standby="off")


@provokes("server_stopping")
def smart_shutdown(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at(stage.stopping, database="postgres"))


@provokes("session_is_not_read_write", only=(*LIBPQ, "ours+pg8000"))
def only_read_only_hosts(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.url("reader", target_session_attrs="read-write"))


# -- is anybody there -------------------------------------------------------------------------------


@provokes("connection_refused")
def refused(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at_port(stage.url(), free_port()))


@provokes("unix_socket_missing")
def no_socket(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(replace(stage.url(), hosts=(Host(str(stage.directory), 5432),)))


@provokes("unknown_host")
def no_such_name(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(replace(stage.url(), hosts=(Host("no-such-host.invalid", 5432),)))


@provokes("host_unreachable")
def no_route(stage: Stage, attempt: Attempt) -> None:
    # Linux lets nobody open a TCP connection to the broadcast address, whatever the network.
    attempt.connect(replace(stage.url(), hosts=(Host("255.255.255.255", 5432),)))


class _Impolite(socketserver.BaseRequestHandler):
    """An HTTP server that complains as soon as it reads what is no HTTP."""

    def handle(self) -> None:
        self.request.recv(8)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


class _Patient(http.server.BaseHTTPRequestHandler):
    """An HTTP server that waits for the end of a line."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def listening(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """Run a TCP server in threads, and yield its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@provokes("not_postgresql", vaguely=UNTOLD)
def http_that_answers(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at_port(stage.url(), attempt.keep(listening(_Impolite))))


@provokes("not_postgresql", vaguely=UNTOLD, is_slow=True)
def http_that_waits(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.at_port(stage.url(), attempt.keep(listening(_Patient))))


@provokes("server_silent", vaguely=UNTOLD, is_slow=True)
def silent(stage: Stage, attempt: Attempt) -> None:
    proxy = attempt.keep(WireProxy("127.0.0.1", stage.plain.port))
    proxy.silence()
    attempt.connect(proxied(stage.at(stage.plain), proxy))


@provokes("connection_timeout", is_slow=True)
def no_answer_to_syn(stage: Stage, attempt: Attempt) -> None:
    # A full backlog: the kernel drops what comes then, as a firewall does.
    listener = attempt.keep(socket.create_server(("127.0.0.1", 0), backlog=0))
    port = listener.getsockname()[1]
    attempt.keep(socket.create_connection(("127.0.0.1", port)))
    attempt.connect(stage.at_port(stage.at(stage.plain), port))


@provokes("connection_failure")
def cut_while_connecting(stage: Stage, attempt: Attempt) -> None:
    proxy = attempt.keep(WireProxy("127.0.0.1", stage.plain.port))
    proxy.on("client", b"user", do="fin")
    attempt.connect(proxied(stage.at(stage.plain, database="postgres"), proxy))


def proxied(url: DatabaseURL, proxy: WireProxy) -> DatabaseURL:
    """Give the URL through a proxy."""
    return replace(url, hosts=(Host("127.0.0.1", proxy.port),))

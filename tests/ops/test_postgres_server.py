"""The launcher of PostgreSQL, on the embedded binaries (tests/servers runs it on those of 16, 17 and 18)."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from ops.embedded import find_binaries
from ops.postgres_failures import PortTaken, explain
from ops.postgres_server import PostgresServer
from shared.errors import LocalEnvironmentError
from tests.ops.checkout import entered_by_all, eventually
from tests.servers.process import free_port

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the user that PostgreSQL runs as")


def server_in(folder: Path) -> PostgresServer:
    settings = {"fsync": "off"}
    return PostgresServer(
        find_binaries(), folder / "pg data", port=free_port(), user="owner", password="p@ss ' w", settings=settings
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """Return the folder of a cluster that the tests of this module start in turn."""
    with entered_by_all() as folder:
        server_in(folder).init()
        yield folder


@pytest.fixture
def server(cluster: Path) -> Iterator[PostgresServer]:
    """Return an initialized server that is not running."""
    server = server_in(cluster)
    yield server
    server.stop("immediate")


def test_starts_answers_and_stops(server: PostgresServer) -> None:
    server.start()
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(
            "SELECT current_user, current_setting('listen_addresses'), current_setting('unix_socket_directories'),"
            " current_setting('password_encryption'), current_setting('server_encoding'), current_setting('fsync')"
        ).fetchone()
    assert row == ("owner", "127.0.0.1", "", "scram-sha-256", "UTF8", "off")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url(), password="wrong")
    server.stop()
    assert not server.running
    assert "database system is shut down" in server.log_tail()


def test_another_process_sees_and_stops_the_server(server: PostgresServer) -> None:
    server.start()
    other = PostgresServer(server.bin_dir, server.data_dir, port=1, user="owner", password="")
    assert (other.pid, other.running_port) == (server.pid, server.port)
    with pytest.raises(LocalEnvironmentError, match=f"process {server.pid}, port {server.port}.* already uses"):
        other.start()
    other.stop()
    assert not server.running


def test_starts_after_kill_9_while_an_orphan_still_runs(server: PostgresServer) -> None:
    server.start()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
        connection.commit()
        assert server.pid is not None
        backend = connection.info.backend_pid
        # A stopped process cannot notice that its postmaster is gone until it is continued.
        os.kill(backend, signal.SIGSTOP)
        os.kill(server.pid, signal.SIGKILL)

    def continue_when_found() -> None:
        eventually(lambda: "pre-existing shared memory block" in server.log_tail(100))
        os.kill(backend, signal.SIGCONT)

    thread = threading.Thread(target=continue_when_found)
    thread.start()
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT * FROM kept").fetchone() == (1,)
    thread.join()


def test_stale_pid_file_with_the_process_id_of_another_program(server: PostgresServer) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        lines = [str(other.pid), str(server.data_dir), "1", str(server.port), "", "", "", "ready"]
        pid_file = server.data_dir / "postmaster.pid"
        pid_file.write_text("\n".join(lines) + "\n")
        shutil.chown(pid_file, server.data_dir.stat().st_uid)
        assert not server.running
        server.start()
        assert server.pid != other.pid
        assert other.poll() is None
        other.kill()


def test_taken_port_is_named(server: PostgresServer) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", server.port))
        listener.listen()
        with pytest.raises(PortTaken, match=f"Port {server.port} on 127.0.0.1 is taken"):
            server.start()
    assert not server.running


def test_data_of_another_major_version_is_refused(server: PostgresServer) -> None:
    version = server.data_dir / "PG_VERSION"
    version.write_text("15\n")
    with pytest.raises(LocalEnvironmentError, match="made by PostgreSQL 15, and these binaries are PostgreSQL 18"):
        server.start()
    version.write_text("18\n")


def test_foreign_directory_is_not_touched(folder: Path) -> None:
    server = server_in(folder)
    server.data_dir.mkdir()
    (server.data_dir / "letter.txt").write_text("dear")
    with pytest.raises(LocalEnvironmentError, match="is not empty"):
        server.init()
    assert (server.data_dir / "letter.txt").read_text() == "dear"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_ends_with_a_killed_parent(server: PostgresServer) -> None:
    script = (
        "import sys; from pathlib import Path; from ops.postgres_server import PostgresServer\n"
        "PostgresServer(Path(sys.argv[1]), Path(sys.argv[2]), port=int(sys.argv[3]), user='o', password='').start()\n"
        "print('ready', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(server.bin_dir), str(server.data_dir), str(server.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        assert server.pid is not None
        postmaster = psutil.Process(server.pid)
        parent.kill()
    gone, _ = psutil.wait_procs([postmaster], timeout=30)
    assert gone == [postmaster]
    assert "received fast shutdown request" in server.log_tail()


@needs_root
def test_root_runs_it_as_nobody_and_opens_no_directory(server: PostgresServer) -> None:
    home = Path(pwd.getpwuid(0).pw_dir)
    mode = home.stat().st_mode
    server.start()
    assert psutil.Process(server.pid).username() == "nobody"
    assert home.stat().st_mode == mode
    assert server.data_dir.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_runs_it_in_a_user_namespace_where_nobody_cannot_go(folder: Path) -> None:
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine allows no user namespace (unshare --user)")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = server_in(closed)
    server.init()
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert psutil.Process(server.pid).username() == "root"
    server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_full_disk_is_one_clear_message(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine allows no mount, so no small disk can be made")
    try:
        with pytest.raises(LocalEnvironmentError, match=r"disk that holds .* is full"):
            server_in(small).init()
        assert not any(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "postgres: error while loading shared libraries: libxml2.so.2: cannot open shared object file",
            "shared library libxml2.so.2 is missing",
        ),
        ("/lib/libc.so.6: version `GLIBC_2.28' not found (required by postgres)", "need GLIBC_2.28"),
        ('FATAL:  could not resize shared memory segment "/x": No space left on device', "too little shared memory"),
        ('FATAL:  could not write to file "pg_wal/xlogtemp.1": No space left on device', "disk .* is full"),
        ('FATAL:  invalid value for parameter "fsync": "maybe"', 'invalid value for parameter "fsync"'),
    ],
)
def test_what_programs_say_is_explained(said: str, expected: str, tmp_path: Path) -> None:
    error = explain(said, port=5432, data_dir=tmp_path, log_file=tmp_path / "log")
    with pytest.raises(LocalEnvironmentError, match=expected):
        raise error
    assert error.solutions

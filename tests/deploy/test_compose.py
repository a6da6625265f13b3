"""docker-compose.production.yml keeps the promises of the production guide, and what it says is run for real.

There is no container engine here: each service's command, settings and environment run on this machine's programs.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg
import pytest
import uvicorn.config
import yaml

from shared.db.providers import provider_of
from shared.db.session import limits
from shared.db.sizes import server_size
from shared.settings import VARIABLES, Settings
from tests.deploy import image
from tests.deploy.container import READY, STOPPED, running
from tests.servers import binaries
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres
from tests.servers.process import free_port, start, stop

ROOT = image.ROOT
FILE = ROOT / "docker-compose.production.yml"
PASSWORD = "0123456789abcdef" * 2
DOT_ENV = {"POSTGRES_USER": "chatmaps", "POSTGRES_DB": "chatmaps", "POSTGRES_PASSWORD": PASSWORD}
ADMIN_PASSWORD = "Correct-Horse-9-Battery"
# What is not of this project: uvicorn's own.
UVICORN_VARIABLES = {"FORWARDED_ALLOW_IPS"}
PGBOUNCER = "1.24.1"


def rendered(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the file as Compose does with this .env: ${NAME}, ${NAME:-otherwise}, ${NAME:?what to do}."""

    def value(match: re.Match[str]) -> str:
        found = environ.get(match["name"], "")
        if not found and match["sign"] == "?":
            raise LookupError(match["rest"])
        return found or match["rest"] or ""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(child) for key, child in node.items()}
        if isinstance(node, list):
            return [walk(child) for child in node]
        pattern = r"\$\{(?P<name>\w+)(?::(?P<sign>[-?])(?P<rest>[^}]*))?\}"
        return re.sub(pattern, value, node) if isinstance(node, str) else node

    config: dict[str, Any] = walk(yaml.safe_load(FILE.read_text("utf-8")))
    return config


@pytest.fixture
def compose() -> dict[str, Any]:
    return rendered(DOT_ENV)


@pytest.fixture
def database_service(compose: dict[str, Any]) -> dict[str, Any]:
    service: dict[str, Any] = compose["services"]["db"]
    return service


def server_settings(service: dict[str, Any]) -> dict[str, str]:
    """Give the settings on the server's command line."""
    words = [word for word in service["command"] if word not in ("postgres", "-c")]
    return dict(word.split("=", 1) for word in words)


# -- the file ---------------------------------------------------------------------------------------


def test_it_is_what_the_compose_specification_says() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_variable_is_in_the_table() -> None:
    known = {variable.name for variable in VARIABLES}
    text = FILE.read_text("utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) - UVICORN_VARIABLES <= known
    for name in ("migrate", "app"):
        assert set(rendered(DOT_ENV)["services"][name]["environment"]) - UVICORN_VARIABLES <= known
    assert "FORWARDED_ALLOW_IPS" in Path(uvicorn.config.__file__).read_text("utf-8")


def test_secrets_have_no_defaults(database_service: dict[str, Any]) -> None:
    text = FILE.read_text("utf-8")
    for name in DOT_ENV:
        without = {other: value for other, value in DOT_ENV.items() if other != name}
        with pytest.raises(LookupError, match=f"set {name}"):
            rendered(without)
        assert name in {variable.name for variable in VARIABLES}
        assert database_service["environment"][name] == DOT_ENV[name]
    assert "32 or more characters" in text
    assert not [variable.name for variable in VARIABLES if variable.secret and f"${{{variable.name}:-" in text]
    assert "chatmaps_dev_password" not in text


def test_nothing_is_published_but_the_app_to_this_machine(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"app": ["127.0.0.1:3000:3000"]}
    assert not [name for name, service in compose["services"].items() if "network_mode" in service]
    assert image.read()[-1].environment["UVICORN_PORT"] == "3000"


def test_every_image_has_a_version_and_it_is_the_one_of_the_tests(compose: dict[str, Any]) -> None:
    services = compose["services"]
    tested = binaries.pinned_version(binaries.requirements("postgresql-16"))
    assert services["db"]["image"] == f"postgres:{tested.removesuffix('.0')}-alpine"
    assert services["pgbouncer"]["image"].startswith(f"edoburu/pgbouncer:v{PGBOUNCER}-")
    assert PGBOUNCER in binaries.PGBOUNCERS
    assert {services[name]["build"] for name in ("migrate", "app")} == {"."}


def test_every_service_has_bounds_and_a_place_for_its_log(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
        assert {"max-size", "max-file"} <= set(service["logging"]["options"]), "or the log fills the disk"
        assert "no-new-privileges:true" in service["security_opt"]
        # The image has a check of its own for the app.
        assert name == "app" or "healthcheck" in service


def test_the_app_comes_after_the_migrations_and_these_after_the_database(compose: dict[str, Any]) -> None:
    conditions = {
        name: {other: wait["condition"] for other, wait in service.get("depends_on", {}).items()}
        for name, service in compose["services"].items()
    }
    assert conditions == {
        "db": {},
        "pgbouncer": {"db": "service_healthy"},
        "migrate": {"db": "service_healthy"},
        "app": {"migrate": "service_completed_successfully", "pgbouncer": "service_healthy"},
    }


def test_the_app_gets_longer_to_stop_than_it_takes(compose: dict[str, Any]) -> None:
    grace = int(compose["services"]["app"]["stop_grace_period"].removesuffix("s"))
    assert grace > int(image.read()[-1].environment["UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"]) + 6


def test_tls_is_switched_off_by_name(compose: dict[str, Any]) -> None:
    for name in ("migrate", "app"):
        environ = compose["services"][name]["environment"]
        settings = Settings.read({"DATABASE_SSL": "true", **environ})
        assert settings.is_production_like
        assert settings.database_url.sslmode == "disable"
        # Without the switch production would refuse to go without TLS there.
        without = Settings.read({**environ, "DATABASE_DISABLE_SSL": ""})
        assert without.database_url.sslmode == "require"


def test_the_app_goes_through_pgbouncer_and_migrations_past_it(compose: dict[str, Any]) -> None:
    for name in ("migrate", "app"):
        settings = Settings.read(compose["services"][name]["environment"])
        assert provider_of(settings.database_url).pooler == "transaction"
        assert settings.direct_database_url is not None
        assert settings.direct_database_url.host == "db"


def test_the_admins_password_is_for_migrations_only(compose: dict[str, Any]) -> None:
    assert compose["services"]["app"]["env_file"] == [{"path": ".env", "required": False}]
    assert compose["services"]["app"]["environment"]["ADMIN_INITIAL_PASSWORD"] == ""
    assert "ADMIN_INITIAL_PASSWORD" not in compose["services"]["migrate"]["environment"]


def test_the_data_is_in_a_named_volume(compose: dict[str, Any], database_service: dict[str, Any]) -> None:
    volume, _, path = database_service["volumes"][0].partition(":")
    assert path == "/var/lib/postgresql/data"
    assert volume in compose["volumes"]


def test_it_is_healthy_when_it_takes_connections(database_service: dict[str, Any]) -> None:
    check = database_service["healthcheck"]
    assert check["test"] == ["CMD-SHELL", "pg_isready -U chatmaps -d chatmaps"]
    assert (check["interval"], check["timeout"], check["retries"]) == ("10s", "5s", 5)


def test_every_network_connection_needs_the_password(database_service: dict[str, Any]) -> None:
    assert "--auth-host=scram-sha-256" in database_service["environment"]["POSTGRES_INITDB_ARGS"]
    assert server_settings(database_service)["password_encryption"] == "scram-sha-256"


def test_pgbouncer_is_in_transaction_mode_and_wants_scram(compose: dict[str, Any]) -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(compose["configs"]["pgbouncer.ini"]["content"])
    settings = ini["pgbouncer"]
    assert (settings["pool_mode"], settings["auth_type"]) == ("transaction", "scram-sha-256")
    assert {settings["client_tls_sslmode"], settings["server_tls_sslmode"]} == {"disable"}
    assert list(ini["databases"]) == ["chatmaps"], "not the server's others"
    of_server = int(settings["default_pool_size"]) + int(settings["reserve_pool_size"])
    page = (ROOT / "docs" / "PRODUCTION.md").read_text("utf-8")
    assert f"{settings['default_pool_size']} connections to the server, and {settings['reserve_pool_size']} in" in page
    assert f"for up to {settings['max_client_conn']} of the app" in page
    assert of_server < 100, "PostgreSQL's own default of max_connections"
    assert settings["listen_port"] == str(compose["services"]["pgbouncer"]["healthcheck"]["test"][-1])


def test_the_env_file_of_the_docs_has_what_it_needs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "PRODUCTION.md").read_text("utf-8")
    script = page.partition("### Docker Compose")[2].partition("```bash\n")[2].partition("```")[0]
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    file = tmp_path / ".env"
    assert file.stat().st_mode & 0o077 == 0, "it is nobody else's"
    values = dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())
    assert values.pop("COMPOSE_FILE") == FILE.name
    assert set(values) == {*DOT_ENV, "ADMIN_INITIAL_PASSWORD"}
    assert re.fullmatch(r"\w{32,}", values["POSTGRES_PASSWORD"])
    rendered(values)


# -- what it says, run ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_16(run_directory: Path) -> Iterator[Postgres]:
    """Run the server of the compose file, with its settings, user and database."""
    settings = server_settings(rendered(DOT_ENV)["services"]["db"])
    with servers.running(16, run_directory / "compose", settings) as postgres:
        postgres.admin().execute(f"CREATE ROLE chatmaps SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        postgres.admin().execute("CREATE DATABASE chatmaps OWNER chatmaps")
        yield postgres


@pytest.fixture(scope="module")
def ports(postgres_16: Postgres, run_directory: Path) -> Iterator[dict[str, str]]:
    """Run PgBouncer with the compose file's configuration; give what `db` and `pgbouncer` are called here."""
    try:
        program = binaries.pgbouncer(PGBOUNCER)
    except binaries.Unavailable as error:
        pytest.skip(str(error))
    directory = run_directory / "compose-pgbouncer"
    directory.mkdir()
    files = {name: config["content"] for name, config in rendered(DOT_ENV)["configs"].items()}
    mounted = {config["source"]: config["target"] for config in rendered(DOT_ENV)["services"]["pgbouncer"]["configs"]}
    assert set(mounted) == set(files)
    port = free_port()
    ini = files["pgbouncer.ini"]
    for theirs, ours in {
        "host=db port=5432": f"host=127.0.0.1 port={postgres_16.port}",
        "listen_addr = 0.0.0.0": "listen_addr = 127.0.0.1",
        "listen_port = 6432": f"listen_port = {port}",
        mounted["userlist.txt"]: str(directory / "userlist.txt"),
    }.items():
        assert theirs in ini
        ini = ini.replace(theirs, ours)
    (directory / "pgbouncer.ini").write_text(ini, "utf-8")
    (directory / "userlist.txt").write_text(files["userlist.txt"], "utf-8")
    command = [str(program.directory / "pgbouncer"), str(directory / "pgbouncer.ini")]
    process = start(command, port, directory / "pgbouncer.log", program.environ)
    try:
        yield {"@db:5432/": f"@127.0.0.1:{postgres_16.port}/", "@pgbouncer:6432/": f"@127.0.0.1:{port}/"}
    finally:
        stop(process)


def environment_of(name: str, ports: Mapping[str, str]) -> dict[str, str]:
    """Give a service's environment, with the addresses of this machine."""
    environ: dict[str, str] = rendered(DOT_ENV)["services"][name]["environment"]
    for theirs, ours in ports.items():
        environ = {key: value.replace(theirs, ours) for key, value in environ.items()}
    # By its port alone this would be a PgBouncer.
    environ["DATABASE_URL"] += "?pgbouncer=true"
    return environ


def test_postgresql_takes_the_settings_and_logs_who_connects(postgres_16: Postgres) -> None:
    settings = server_settings(rendered(DOT_ENV)["services"]["db"])
    with psycopg.connect(postgres_16.admin_url(), application_name="auditor") as connection:
        rows = connection.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(settings)])
        assert dict(rows.fetchall()) == settings
    log = postgres_16.server.log_tail(200)
    assert "connection authorized: user=postgres database=postgres application_name=auditor" in log


def test_pgbouncer_takes_the_password_and_nothing_else_and_sets_limits(ports: dict[str, str]) -> None:
    url = environment_of("app", ports)["DATABASE_URL"].partition("?")[0]
    with psycopg.connect(url) as connection:
        expected = limits(request_timeout=Settings.read({}).request_timeout, idle_timeout=server_size(1).idle_timeout)
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            row = connection.execute("SELECT setting FROM pg_settings WHERE name = %s", [name]).fetchone()
            assert row == (expected.settings()[name],)
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|SASL authentication failed"):
        psycopg.connect(url.replace(PASSWORD, "wrong"))
    with pytest.raises(psycopg.OperationalError, match=r"SSL|TLS"):
        psycopg.connect(url, sslmode="require")


def test_the_migrations_run_and_then_the_app_answers(ports: dict[str, str], tmp_path: Path) -> None:
    root = image.lay_out(tmp_path)
    services = rendered(DOT_ENV)["services"]
    first = image.environment(root, **environment_of("migrate", ports), ADMIN_INITIAL_PASSWORD=ADMIN_PASSWORD)
    with running(services["migrate"]["command"], first, root / "app") as container:
        assert container.wait() == 0, container.output
        assert "The database is at" in container.output
    port = free_port()
    second = image.environment(root, **environment_of("app", ports))
    second |= {"UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": str(port)}
    with running(image.read()[-1].command, second, root / "app") as container:
        container.wait_for(READY)
        assert httpx.get(f"http://127.0.0.1:{port}/api/health").json()["status"] == "ok"
        assert httpx.get(f"http://127.0.0.1:{port}/api/db/test").json()["status"] == "connected"
        container.terminate()
        assert container.wait() == STOPPED
        assert "pooler answers" not in container.output, "it knew"

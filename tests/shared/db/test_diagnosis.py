"""Every failure in the table of diagnoses, provoked for real with six clients, gives its one diagnosis."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.db.diagnosis import diagnose
from tests.servers.postgres import APP_PASSWORD, Postgres
from tests.servers.tls import Certificates
from tests.shared.db import provoke_connecting, provoke_statements  # noqa: F401 - they register their cases
from tests.shared.db.clients import Client
from tests.shared.db.provoke import CANARY, CASES, ROLE_PASSWORD, Attempt, Case, Stage, attempts, outcome

# Clients that leave sockets open when a server fails them in the middle: pg8000 does, and its garbage warns.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def stage(run_directory: Path, postgres: Postgres, certificates: Certificates) -> Iterator[Stage]:
    with ExitStack() as stack:
        directory = run_directory / "diagnosis"
        directory.mkdir()
        stage = Stage(directory, postgres, certificates, stack)
        assert stage.strict
        yield stage


def judge(case: Case, attempt: Attempt, error: BaseException) -> None:
    told = "".join(traceback.format_exception_only(error))
    first = diagnose(error, attempt.url)
    assert first.code in (case.code, *case.vaguely), f"{attempt.client.name}: {first.code}: {told}"
    found = diagnose(error, attempt.url, probe=True, timeout=1.5)
    assert found.code == case.code, f"{attempt.client.name}: {found.code}: {found.solutions[-1]}: {told}"
    for text in (first.cause, *first.solutions, found.cause, *found.solutions, repr(found)):
        for secret in (CANARY, APP_PASSWORD, ROLE_PASSWORD):
            assert secret not in text


QUICK = [(case, client) for case in CASES if not case.is_slow for client in case.clients]


@pytest.mark.parametrize(
    ("case", "client"), QUICK, ids=[f"{case.code}-{case.provoke.__name__}-{client.name}" for case, client in QUICK]
)
def test_a_failure_has_one_diagnosis_whoever_meets_it(stage: Stage, case: Case, client: Client) -> None:
    error, attempt = outcome(stage, case, client)
    try:
        judge(case, attempt, error)
    finally:
        attempt.close()


SLOW = [case for case in CASES if case.is_slow]


@pytest.mark.parametrize("case", SLOW, ids=[f"{case.code}-{case.provoke.__name__}" for case in SLOW])
def test_a_failure_that_takes_its_time_has_one_diagnosis(stage: Stage, case: Case) -> None:
    attempts(stage, case, lambda attempt, error: judge(case, attempt, error))

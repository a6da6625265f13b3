"""Our exceptions: told apart by code, by exit code and by class."""

import inspect
import pickle

import pytest

from shared import errors
from shared.errors import Error

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Error)]

EXIT_CODES = {
    errors.Error: 1,
    errors.ConfigurationError: 3,
    errors.DatabaseUnavailable: 4,
    errors.DeadlineExceeded: 4,
    errors.TransactionResolutionUnknown: 4,
    errors.Overloaded: 4,
    errors.Unhealthy: 5,
    errors.MigrationError: 6,
    errors.LockTimeout: 7,
    errors.Refused: 8,
    errors.LocalEnvironmentError: 9,
    errors.DatabaseError: 10,
    errors.DirectConnectionRequired: 11,
    errors.EnvironmentMismatch: 12,
    errors.HistoryMismatch: 13,
    errors.DatabaseAhead: 14,
    errors.LintError: 15,
    errors.BackupError: 16,
}


def test_every_code_is_of_one_class() -> None:
    codes = [kind.code for kind in ALL]

    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)
    assert all(inspect.getdoc(kind) for kind in ALL)


@pytest.mark.parametrize("kind", ALL)
def test_exit_codes_are_kept_by_subclasses(kind: type[Error]) -> None:
    family = next(parent for parent in kind.__mro__ if parent in EXIT_CODES)

    assert kind.exit_code == EXIT_CODES[family]
    assert kind.exit_code not in (0, 2)  # success, and the command line's own for wrong usage


@pytest.mark.parametrize("kind", ALL)
def test_an_error_carries_what_happened_and_what_to_do(kind: type[Error]) -> None:
    error = kind("It happened.", solutions=["Do this.", "Or that."], sqlstate="57014")

    assert str(error) == error.message == "It happened."
    assert error.solutions == ("Do this.", "Or that.")
    assert error.sqlstate == "57014"
    assert kind("It happened.").solutions == ()


def test_a_violation_names_its_constraint() -> None:
    error = errors.UniqueViolation("It is there.", sqlstate="23505", constraint="users_email_key")

    assert error.constraint == "users_email_key"
    assert isinstance(error, errors.IntegrityError)
    assert isinstance(error, errors.DatabaseError)


def test_an_error_can_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(errors.UniqueViolation("It is there.", sqlstate="23505", constraint="c")))

    assert (error.message, error.sqlstate, error.constraint) == ("It is there.", "23505", "c")

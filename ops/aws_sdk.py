"""AWS's library for Python, installed under `.data/` when it is first needed."""

import hashlib
import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.bootstrap import Problem, pip
from shared.errors import LocalEnvironmentError, MigrationError

ROOT = Path(__file__).resolve().parent.parent


def module(name: str) -> Any:
    """Give a module of it, such as boto3. Raises LocalEnvironmentError where it cannot be installed."""
    requirements = ROOT / "requirements-aws.txt"
    folder = ROOT / ".data" / f"aws-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            pip(Path(sys.executable), ["install", "--target", str(fresh), "--requirement", str(requirements)])
            if not folder.is_dir():  # another process may have been faster
                fresh.rename(folder)
        except Problem as problem:
            raise LocalEnvironmentError(problem.message, solutions=problem.solutions) from problem
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # first: it brings a python-dateutil of its own
    return importlib.import_module(name)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what boto3 raises in the block into LocalEnvironmentError or MigrationError."""
    failures = module("botocore.exceptions")
    try:
        yield
    except (failures.NoCredentialsError, failures.PartialCredentialsError, failures.ProfileNotFound) as error:
        raise LocalEnvironmentError(
            f"There are no AWS credentials: {error}", solutions=["Set AWS_PROFILE, or run aws configure."]
        ) from error
    except failures.ReadTimeoutError as error:
        raise MigrationError(
            "The function `migrate` did not answer in its time; whether it still migrates is unknown.",
            solutions=["See its log before you deploy again: npx osls logs -f migrate"],
        ) from error
    except (failures.ClientError, failures.BotoCoreError) as error:
        raise MigrationError(f"AWS says: {error}", solutions=["Nothing but `migrate` was changed."]) from error

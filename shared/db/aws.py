"""What is asked of AWS for a password: Secrets Manager, Systems Manager's parameters, and RDS's IAM tokens.

boto3 is imported when the first of these is asked for and not before: it costs a cold start more than all the rest.
Lambda's runtime has it. Every error is a ConfigurationError that says which right or setting is missing.
"""

import importlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from shared.errors import ConfigurationError

CONNECT_TIMEOUT = 2.0  # seconds; a subnet without a way to AWS swallows packets
READ_TIMEOUT = 4.0
_ATTEMPTS = 3

_lock = threading.Lock()
_sessions: dict[str | None, Any] = {}  # by region; a second client of one costs little

_MISSING = {"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"}
_FORBIDDEN = {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"}
_NOBODY = {
    "ExpiredTokenException", "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
    "UnrecognizedClientException",
}  # fmt: skip
_UNDECIPHERED = {"DecryptionFailure", "InvalidKeyId", "KMSAccessDeniedException"}


class NotThere(ConfigurationError):
    """AWS has no secret, version or parameter of that name."""


class SecretsManager(NamedTuple):
    """A secret, by its ARN or name. Its stages are AWS's: AWSCURRENT, and AWSPENDING while it is being rotated."""

    secret: str

    def current(self) -> str:
        """Read what is in force. Raises ConfigurationError."""
        return self._read("AWSCURRENT")

    def pending(self) -> str | None:
        """Read what a rotation under way will put in force, None where there is none. Raises ConfigurationError."""
        try:
            return self._read("AWSPENDING")
        except NotThere:
            return None

    def _read(self, stage: str) -> str:
        with (
            explained("secretsmanager:GetSecretValue", self.secret),
            client("secretsmanager", self.secret) as asked,
        ):
            # Always by its stage: without one, some implementations give what was put last.
            answer = asked.get_secret_value(SecretId=self.secret, VersionStage=stage)
        return _text(answer.get("SecretString"), self.secret)


class ParameterStore(NamedTuple):
    """A parameter of Systems Manager, by its name or ARN; a SecureString is deciphered."""

    parameter: str

    def current(self) -> str:
        """Read it. Raises ConfigurationError."""
        with explained("ssm:GetParameter", self.parameter), client("ssm", self.parameter) as asked:
            answer = asked.get_parameter(Name=self.parameter, WithDecryption=True)
        return _text(answer["Parameter"].get("Value"), self.parameter)

    def pending(self) -> str | None:
        """Give None: a parameter has no value that waits."""
        return None


def token(host: str, port: int, user: str) -> str:
    """Sign a token that RDS takes as the password of `user` for 15 minutes. Asks nobody but for AWS credentials."""
    in_name = re.search(r"\.([a-z]{2}(?:-[a-z]+)+-\d)\.rds\.amazonaws\.com", host)
    region = in_name[1] if in_name else _region("")
    name = f"arn:aws:rds:{region}:" if region else ""
    with explained("rds-db:connect", f"{user} at {host}"), client("rds", name) as signer:
        return str(signer.generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user, Region=region))


@contextmanager
def client(service: str, name: str) -> Iterator[Any]:
    """Lend a client for the region that an ARN names, else the environment's. Raises ConfigurationError."""
    try:
        boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    except ImportError:
        raise ConfigurationError(
            "boto3 is not installed, and the environment says that AWS keeps the database's password.",
            solutions=[
                "Lambda's Python runtime has it; elsewhere: pip install boto3",
                "Or set DATABASE_URL with its password, and remove DATABASE_URL_SECRET_ARN, DATABASE_URL_SSM_PARAMETER "
                "and DATABASE_IAM_AUTH.",
            ],
        ) from None
    logging.getLogger("botocore").setLevel(logging.INFO)  # at DEBUG it writes answers down, and so the password
    bounded = config.Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    region = _region(name)
    with _lock:  # clients may be used by several threads, the session that makes them by one
        session = _sessions.get(region)
        if session is None:
            session = _sessions[region] = boto3.session.Session(region_name=region)
        made = session.client(service, config=bounded)
    with closing(made):
        yield made


def after_fork() -> None:
    """Take a new lock in a forked child: a thread that the child lacks may hold the old one."""
    global _lock
    _lock = threading.Lock()


def _region(name: str) -> str | None:
    parts = name.split(":")
    if len(parts) > 3 and parts[0] == "arn" and parts[3]:
        return parts[3]
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def _text(value: object, name: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ConfigurationError(f"{name} holds no text.", solutions=["Store a connection string, or JSON."])


@contextmanager
def explained(action: str, name: str) -> Iterator[None]:
    """Turn what boto3 raises in the block into ConfigurationError: `action` is the IAM action that it takes."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        ours = _ours(error, action, name)
        if ours is None:
            raise
        # Not chained: a request's or an answer's text may be in it.
        raise ours from None


def _ours(error: Exception, action: str, name: str) -> ConfigurationError | None:
    exceptions = importlib.import_module("botocore.exceptions")
    if isinstance(error, exceptions.ClientError):
        return _refused(str(error.response.get("Error", {}).get("Code", "")), action, name)
    if isinstance(error, exceptions.NoRegionError):
        solution = "Set AWS_REGION, or give the secret by its ARN."
        return ConfigurationError("AWS needs a region, and none is set.", solutions=[solution])
    nobody = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    if isinstance(error, nobody):
        return _nobody(name)
    if isinstance(error, exceptions.BotoCoreError):
        return ConfigurationError(
            f"AWS did not answer when asked for {name} ({type(error).__name__}).",
            solutions=["In a VPC without a NAT gateway, add an interface endpoint for this service of AWS."],
        )
    return None


def _refused(code: str, action: str, name: str) -> ConfigurationError:
    if code in _MISSING:
        return NotThere(
            f"AWS has no {name}, or not that version of it ({code}).",
            solutions=["Compare name, account and region with the AWS console's."],
        )
    if code in _FORBIDDEN:
        return ConfigurationError(
            f"AWS does not let this role use {name} ({code}).",
            solutions=[
                f"Allow {action} on it in the role's IAM policy.",
                "Where a key of your own encrypts it, allow kms:Decrypt on that key too.",
            ],
        )
    if code in _UNDECIPHERED:
        return ConfigurationError(
            f"AWS cannot decipher {name} ({code}).", solutions=["Allow kms:Decrypt on its key in the role's policy."]
        )
    if code in _NOBODY:
        return _nobody(name)
    return ConfigurationError(
        f"AWS answered {code or 'with an error'} when asked for {name}.",
        solutions=["Try again; status.aws.amazon.com tells of outages."],
    )


def _nobody(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"There are no valid AWS credentials to ask for {name}.",
        solutions=["On Lambda the function's role gives them; elsewhere set AWS_PROFILE, or run aws configure."],
    )

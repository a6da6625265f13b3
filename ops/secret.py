"""`db secret`: a password that nobody guesses, and that needs no encoding in a connection string."""

import json
import secrets
import string
from typing import Annotated

import typer

from shared.db import scram

LENGTH = 40  # characters; of 62 kinds that is more than 230 bits
_ALPHABET = string.ascii_letters + string.digits


def make(length: int = LENGTH) -> str:
    """Make a password of letters and digits, from the system's source of randomness."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def run(
    length: Annotated[int, typer.Option(min=32, max=256, help="Characters.")] = LENGTH,
    verifier: Annotated[
        bool, typer.Option("--verifier", help="Print also what ALTER ROLE ... PASSWORD takes in its place.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
) -> None:
    """Make a strong password, or a token such as CRON_SECRET, and print it. It is stored nowhere."""
    password = make(length)
    found = {"secret": password} | ({"verifier": scram.verifier(password)} if verifier else {})
    print(json.dumps(found) if as_json else "\n".join(found.values()))  # noqa: T201

"""`db shell`: psql on the configured database."""

import os
import shutil
from dataclasses import replace

import typer

from ops import embedded
from shared.errors import LocalEnvironmentError
from shared.settings import get_settings


def run(context: typer.Context) -> None:
    """Open psql on the database; further arguments go to it: db shell -c 'SELECT 1'."""
    url = get_settings().database_url
    psql = shutil.which("psql") or (embedded.psql() if url.is_local else None)
    if psql is None:
        raise LocalEnvironmentError(
            "psql is not installed.",
            solutions=["Install PostgreSQL's client: apt install postgresql-client, or brew install libpq."],
        )
    environ = dict(os.environ)
    if url.password is not None:
        environ["PGPASSWORD"] = url.password  # not in the arguments, which every user of the machine can read
    os.execve(psql, ["psql", replace(url, password=None).render(password=True), *context.args], environ)  # noqa: S606

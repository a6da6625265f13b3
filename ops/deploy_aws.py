"""Build for AWS Lambda and deploy: `make build-aws`, `make deploy-aws`, and what the hooks in serverless.yml call.

python -m ops.deploy_aws build        package, offline
python -m ops.deploy_aws deploy       package, migrate, upload
python -m ops.deploy_aws migrate      the hook of `osls deploy`: it runs before anything is uploaded or changed
python -m ops.deploy_aws check        the hook of `osls deploy function`, which migrates nothing
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from migrations.__main__ import main as migrations
from migrations.failure import describe
from ops import aws_migrate, aws_sdk
from ops.aws_package import Package
from shared import db
from shared.db import credentials
from shared.db.schema_head import REVISION
from shared.errors import ConfigurationError, Error, LocalEnvironmentError, Refused, UndefinedTable
from shared.settings import get_settings, reset_settings

ROOT = Path(__file__).resolve().parent.parent
NODE = 20  # the oldest that osls runs on


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ops.deploy_aws", description="Deploy to AWS Lambda.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, meaning in {"build": "package, offline", "deploy": "package, migrate, upload"}.items():
        command = commands.add_parser(name, help=meaning)
        command.add_argument("--stage", default="production")
        command.add_argument("--region", help="by default AWS_REGION, or us-east-1")
        command.add_argument("--migrate-via", choices=["here", "lambda"], help="by default as in serverless.yml")
    for name, meaning in {"migrate": "what `osls deploy` calls", "check": "what `osls deploy function` calls"}.items():
        commands.add_parser(name, help=meaning).add_argument("--via", choices=["here", "lambda"], required=True)
    options = parser.parse_args(arguments)
    try:
        if options.command == "migrate":
            return migrate(options.via)
        if options.command == "check":
            check(options.via)
            return 0
        parameters = ["--stage", options.stage]
        if options.region:
            parameters += ["--region", options.region]
        if options.migrate_via:
            parameters += ["--param", f"migrateVia={options.migrate_via}"]
        return build(parameters) if options.command == "build" else deploy(parameters)
    except Error as error:
        print(f"Error: {describe(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def build(parameters: list[str]) -> int:
    """Package, and say where the zip is and how large. Nothing is uploaded."""
    code = _osls(["package", *parameters])
    if code == 0:
        package = Package.read(ROOT / ".serverless")
        _say(f"{package.zip.relative_to(ROOT)}: {package.zip.stat().st_size / 1e6:.1f} MB")
    return code


def deploy(parameters: list[str]) -> int:
    """Package, migrate and upload. The commit goes along, for the header X-Deployed-Commit."""
    os.environ.setdefault("APP_COMMIT", _commit())
    return _osls(["deploy", *parameters])


def migrate(via: str) -> int:
    """Migrate the database that the packaged functions will use; gives the exit code, 0 where they may go up."""
    package = Package.read(ROOT / ".serverless")
    environment = package.environment("migrate")
    url = environment.get("DATABASE_URL")
    named = {name: environment.get(name) or "" for name in (credentials.SECRET, credentials.PARAMETER, credentials.IAM)}
    if not url and not credentials.asks_aws(named):
        raise ConfigurationError(
            "DATABASE_URL is not set, so the functions would have no database.",
            solutions=["Set it in .env, or `databaseUrl` in serverless.yml; then deploy again."],
        )
    if via == "lambda":
        aws_migrate.run(package, report=_say)
        return 0
    if url and not isinstance(url, str):
        raise ConfigurationError(
            "databaseUrl in serverless.yml is known to CloudFormation only.",
            solutions=["Let the function `migrate` do it, which gets the value: set migrateVia to lambda."],
        )
    os.environ.update({"DATABASE_URL": url or "", **named})
    if credentials.asks_aws(named):
        aws_sdk.module("boto3")
    reset_settings()
    if get_settings().migration_dryrun:
        raise Refused(
            "With MIGRATION_DRYRUN=true nothing is migrated, and the functions would go up without their schema.",
            solutions=["Unset it. To look first: python -m migrations deploy --dry-run"],
        )
    # An emulator's functions may run on this machine; AWS's do not.
    if get_settings().database_url.is_local and not os.environ.get("AWS_ENDPOINT_URL"):
        raise Refused(
            "DATABASE_URL leads to this machine, which the functions on AWS cannot reach.",
            solutions=["Set it in .env to the database that they shall use."],
        )
    return migrations(["deploy"])


def check(via: str) -> None:
    """Refuse to replace one function's code where that needs another schema than the database has. Raises Refused."""
    whole = "Deploy everything, which migrates first: make deploy-aws"
    if via == "lambda":
        raise Refused(
            "One function alone cannot be deployed: whether its schema is there cannot be seen from here.",
            solutions=[whole],
        )
    try:
        found = db.fetch_value("SELECT version_num FROM alembic_version")
    except UndefinedTable:
        found = None
    finally:
        db.close_db()
    if found != REVISION:
        raise Refused(
            f"The database is at {found or 'no revision'}, and this code was written for {REVISION}.",
            solutions=[whole],
        )


def _osls(arguments: list[str]) -> int:
    command = [str(_tools() / "osls"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=_environment(), check=False).returncode


def _tools() -> Path:
    """Give the folder of osls, which package.json pins, installed where it is not. Raises LocalEnvironmentError."""
    node = shutil.which("node")
    version = "" if node is None else subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").partition(".")[0] or 0) < NODE:
        raise LocalEnvironmentError(
            f"osls needs Node.js {NODE} or newer, and this machine has {version.strip() or 'none'}.",
            solutions=["Install it: nodejs.org, or the system's package manager."],
        )
    pins: dict[str, str] = json.loads((ROOT / "package.json").read_text("utf-8"))["devDependencies"]
    if any(_installed(name) != version for name, version in pins.items()):
        # Without a lock file: it would name the registry of whoever wrote it.
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        if subprocess.run(install, cwd=ROOT, check=False).returncode != 0:
            raise LocalEnvironmentError("npm could not install osls.", solutions=["See what it says above."])
    return ROOT / "node_modules" / ".bin"


def _installed(package: str) -> str | None:
    try:
        manifest = json.loads((ROOT / "node_modules" / package / "package.json").read_text("utf-8"))
    except OSError:
        return None
    return str(manifest["version"])


def _environment() -> Mapping[str, str]:
    python = runtime_python()
    quiet = {"SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off"}
    return {**os.environ, **quiet, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def runtime_python() -> Path:
    """Find the Python of Lambda's version, which installs and compiles the packages. Raises LocalEnvironmentError."""
    version = yaml.safe_load((ROOT / "serverless.yml").read_text("utf-8"))["custom"]["python"]
    name = f"python{version}"
    found = shutil.which(name)
    home = Path.home()
    others = [
        *(home / ".pyenv" / "versions").glob(f"{version}.*/bin/{name}"),
        *(home / ".local" / "share" / "uv" / "python").glob(f"cpython-{version}.*/bin/{name}"),
    ]
    for candidate in [*([Path(found)] if found else []), *sorted(others)]:
        # pyenv's is on the path even where it leads to nothing.
        done = subprocess.run([candidate, "-c", "import pip, venv"], capture_output=True, check=False)
        if done.returncode == 0:
            return candidate
    raise LocalEnvironmentError(
        f"{name} is not installed; it is what Lambda runs, and the bytecode in the zip must come from it.",
        solutions=[f"Install it: apt install {name}-venv, brew install python@{version}, or pyenv install {version}."],
    )


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

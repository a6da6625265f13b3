"""`python -m migrations deploy`: what the Vercel build hook and CI call. It needs only a function's requirements."""

import argparse
import sys

from migrations import runner
from migrations.failure import describe
from shared.errors import Error


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit code, which docs/DATABASE.md lists."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description="Migrate the database in DATABASE_URL.")
    commands = parser.add_subparsers(dest="command", required=True)
    deploy = commands.add_parser("deploy", help="apply what is pending, then add essential data that is missing")
    deploy.add_argument("--dry-run", action="store_true", help="show what would run and change nothing")
    deploy.add_argument("--force", action="store_true", help="migrate although MIGRATION_REQUIRE_FORCE is true")
    options = parser.parse_args(arguments)
    try:
        if options.dry_run:
            runner.dry_run(report=_print)
        else:
            runner.deploy(report=_print, force=options.force)
    except Error as error:
        print(f"Error: {describe(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

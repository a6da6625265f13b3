"""`python -m migrations deploy`: what the Vercel build hook and CI call. It needs only a function's requirements."""

import argparse
import gc
import sys

from shared.imports import without_collection

with without_collection():
    from migrations import runner, sigterm
    from migrations.failure import describe
    from shared.errors import Error


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit code, which docs/DATABASE.md lists."""
    parser = argparse.ArgumentParser(prog="python -m migrations", description="Migrate the database in DATABASE_URL.")
    commands = parser.add_subparsers(dest="command", required=True)
    deploy = commands.add_parser("deploy", help="apply what is pending, then add essential data that is missing")
    deploy.add_argument("--dry-run", action="store_true", help="show what would run and change nothing")
    deploy.add_argument("--force", action="store_true", help="migrate although MIGRATION_REQUIRE_FORCE is true")
    deploy.add_argument("--strict", action="store_true", help="fail where the database is ahead of this code")
    options = parser.parse_args(arguments)
    try:
        with sigterm.interrupts():
            if options.dry_run:
                runner.dry_run(report=_print, strict=options.strict)
            else:
                runner.deploy(report=_print, force=options.force, strict=options.strict)
    except Error as error:
        print(f"Error: {describe(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    code = main()
    # Else the interpreter looks through all that was imported once more before it ends: a fifth of a short run.
    gc.freeze()
    sys.exit(code)

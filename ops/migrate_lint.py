"""`db migrate lint`: what migrations would lock, rewrite or break, and the safe form of each. It needs no database."""

import json
from pathlib import Path
from typing import Annotated

import typer

from migrations import files, lint
from migrations.files import VERSIONS, Migration
from shared.errors import LintError, MigrationError


def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[FILES]...", help="Only these; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
) -> None:
    """Say what migrations would lock, rewrite or break, and show the safe form of each."""
    migrations, chosen = _chosen(names or [], VERSIONS)
    # All are looked at: earlier files tell the types and constraints that later ones change.
    findings = [finding for finding in lint.check(migrations) if finding.path in chosen]
    summary = lint.sentence_of(findings)
    if as_json:
        report = {"findings": [finding.as_object() for finding in findings], "notices": lint.notices()}
        print(json.dumps(report, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        count = f"{len(chosen)} migration{'' if len(chosen) == 1 else 's'}"
        for line in [*map(str, findings), *lint.notices(), f"Looked at {count}: {summary}."]:
            print(line)  # noqa: T201
    if any(finding.fails for finding in findings):
        raise LintError(
            f"Lint: {summary}.",
            solutions=[
                "Write the safe form, or say directly before the statement why it is safe here: "
                "-- lint: allow RULE because REASON",
            ],
        )


def _chosen(names: list[str], directory: Path) -> tuple[list[Migration], set[Path]]:
    """Give all migrations, those from elsewhere among them, and the paths of the chosen ones. Raises MigrationError."""
    known = {migration.name: migration for migration in files.chain(directory)}
    if not names:
        return list(known.values()), {migration.path for migration in known.values()}
    chosen = set()
    for name in names:
        path = Path(name)
        migration = known.get(path.name if path.suffix else f"{path.name}.sql")
        if migration is None or (path.parent != Path() and path.resolve() != migration.path.resolve()):
            if not path.is_file():
                raise MigrationError(f"There is no file {name}.", solutions=["Name a migration, or give its path."])
            migration = files.parse(path)
            known[migration.name] = migration
        chosen.add(migration.path)
    return sorted(known.values(), key=lambda migration: migration.revision), chosen

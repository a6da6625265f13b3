"""Lint: say before a migration runs what it would lock, rewrite or break, and write the form that is safe.

    for finding in lint.check(migrations):
        print(finding)

The rules are ours (the modules of their topics), with Squawk beside them where it is installed (squawk.py). A file may
say why an error is none, directly before the statement: `-- lint: allow drop-column because no code names it`.
docs/MIGRATION_LINT.md lists the rules. What stands in functions, in DO blocks and behind WITH is not looked into.
"""

from migrations.lint.finding import Finding, SafeFile, sentence_of
from migrations.lint.linter import ALLOW_RULES, RULES, check, notices

__all__ = ["ALLOW_RULES", "RULES", "Finding", "SafeFile", "check", "notices", "sentence_of"]

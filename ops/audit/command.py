"""The command line of `db audit`: findings as they are made, or an object."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ops.audit import examine
from ops.audit.finding import Finding
from shared.errors import Unhealthy
from shared.settings import get_settings

_LOOK = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red"), "unseen": ("?", "dim")}


def run(as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False) -> None:
    """Check the database's security against the guide's list, with the SQL that mends it. It changes nothing."""
    findings = examine(get_settings())
    done = list(findings) if as_json else _show(findings)
    count = {verdict: sum(finding.verdict == verdict for finding in done) for verdict in _LOOK}
    if as_json:
        found = {"counts": count, "findings": [asdict(finding) for finding in done]}
        print(json.dumps(found, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        said = f"{count['fail']} to mend, {count['warn']} to consider, {count['unseen']} that this role may not see"
        Console(soft_wrap=True, highlight=False).print(Text(said, "bold"))
    if count["fail"]:
        raise typer.Exit(Unhealthy.exit_code)


def _show(findings: Iterable[Finding]) -> list[Finding]:
    console = Console(soft_wrap=True, highlight=False)
    done = []
    for finding in findings:
        sign, style = _LOOK[finding.verdict]
        console.print(Text.assemble((f"{sign} ", style), (f"{finding.name:<20}", "bold"), finding.found))
        for line in finding.sql:
            console.print(Text(f"    {line}", "cyan"))
        for line in finding.advice:
            console.print(Text(f"    - {line}"))
        done.append(finding)
    return done

"""The command line of `db doctor`: steps as they are done, or an object; or what a pasted error means."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ops.doctor import examine
from ops.doctor.step import Step
from shared.db.diagnosis import Diagnosis, diagnose
from shared.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, Error, Unhealthy
from shared.log import masked
from shared.settings import DIRECT_URLS, Settings, get_settings

_LOOK = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red"), "skip": ("-", "dim")}
_NO_WAY_ON = ("Socket", "DNS", "TCP", "TLS", "Log in")


def run(
    url: Annotated[
        str | None, typer.Argument(help="A connection string, as pasted; by default DATABASE_URL.", show_default=False)
    ] = None,
    error: Annotated[
        str | None, typer.Option(help="An error message, with its SQLSTATE if you have it; `-` reads it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
) -> None:
    """Examine a connection string step by step, and say what is wrong and what to do. It changes nothing."""
    if error is not None:
        _explain(explanation(sys.stdin.read() if error == "-" else error), as_json)
        return
    settings = get_settings() if url is None else _settings_for(url)
    steps = examine(settings)
    done = list(steps) if as_json else _show(steps)
    if as_json:
        print(json.dumps(_as_object(done), indent=2, ensure_ascii=False))  # noqa: T201
    _end(done)


def _settings_for(url: str) -> Settings:
    """Give the settings with another DATABASE_URL; the direct URLs around belong to the usual one."""
    environ = {name: value for name, value in os.environ.items() if name not in DIRECT_URLS}
    return Settings.read({**environ, "DATABASE_URL": url})


def _show(steps: Iterable[Step]) -> list[Step]:
    console = Console(soft_wrap=True, highlight=False)
    done = []
    for step in steps:
        sign, style = _LOOK[step.verdict]
        line = Text.assemble((f"{sign} ", style), (f"{step.name:<18}", "bold"), step.found)
        if step.code:
            line.append(f" ({step.code})", "dim")
        console.print(line)
        for solution in step.solutions:
            console.print(Text(f"    - {solution}"))
        done.append(step)
    return done


def _as_object(steps: list[Step]) -> dict[str, object]:
    return {
        "status": _verdict(steps),
        "steps": [
            {
                "name": step.name,
                "verdict": step.verdict,
                "found": step.found,
                "solutions": list(step.solutions),
                "code": step.code,
            }
            for step in steps
        ],
    }


def _verdict(steps: list[Step]) -> str:
    verdicts = {step.verdict for step in steps}
    return next((verdict for verdict in ("fail", "warn") if verdict in verdicts), "ok")


def _end(steps: list[Step]) -> None:
    """Exit with the code of what failed first; the step has said why already."""
    first = next((step for step in steps if step.verdict == "fail"), None)
    if first is None:
        return
    if first.name == "Connection string":
        raise typer.Exit(ConfigurationError.exit_code)
    raise typer.Exit(DatabaseUnavailable.exit_code if first.name in _NO_WAY_ON else Unhealthy.exit_code)


def explanation(text: str) -> Diagnosis:
    """Say what an error message means, by the same table as the log and the steps."""
    said = masked(text.strip())
    named = re.match(r"(\w+): ", said)  # as our log and commands write it
    kind = next((kind for kind in _kinds(Error) if named and kind.code == named[1]), None)
    said = said[named.end() :] if named and kind else said
    state = re.search(r"SQLSTATE\W{0,3}([0-9A-Z]{5})\b|\(([0-9A-Z]{5})\)", said)
    return diagnose((kind or DatabaseError)(said, sqlstate=(state[1] or state[2]) if state else None))


def _kinds(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _explain(found: Diagnosis, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_diagnosis_object(found), indent=2, ensure_ascii=False))  # noqa: T201
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text.assemble((found.cause, "bold"), (f" ({found.code})", "dim")))
    for solution in found.solutions:
        console.print(Text(f"  - {solution}"))


def _diagnosis_object(found: Diagnosis) -> dict[str, object]:
    return {"code": found.code, "cause": found.cause, "solutions": list(found.solutions), "sqlstate": found.sqlstate}

"""`db health`: every check of shared/health/checks, for a person or a program.

Exit code 0 where nothing fails, 5 where a check does, 4 where there is no connection, with the diagnosis.
"""

import json
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shared.errors import Unhealthy
from shared.health.report import Report, make_report
from shared.health.result import Result
from shared.health.units import cell, heading

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "dim"}
_SHOWN = 10  # rows of a table; --json has more
_INTERVAL = 5.0  # seconds


def run(
    seconds: Annotated[float, typer.Argument(help="How often to look again, with --watch.", min=0.5)] = _INTERVAL,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object; with --watch, one a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
) -> None:
    """Look at the database: connections, sessions, sizes, indexes, vacuum, replication, settings."""
    console = Console()
    if watch:
        _watch(console, seconds, as_json)
        return
    report = make_report()
    if as_json:
        print(json.dumps(report.as_object(), indent=2, ensure_ascii=False))  # noqa: T201
    else:
        _print(console, report)
    if report.error is not None:
        raise report.error
    if report.status == "fail":
        failed = [result.name for result in report.results if result.verdict == "fail"]
        raise Unhealthy(f"Failed: {', '.join(failed) or 'every check, as the connection was lost'}.")


def _watch(console: Console, seconds: float, as_json: bool) -> None:
    if as_json or not console.is_terminal:
        while True:
            report = make_report()
            if as_json:
                print(json.dumps(report.as_object(), ensure_ascii=False), flush=True)  # noqa: T201
            else:
                _print(console, report)
            time.sleep(seconds)
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(Group(*_tables(make_report())), refresh=True)
            time.sleep(seconds)


def _print(console: Console, report: Report) -> None:
    if console.is_terminal:
        console.print(*_tables(report), sep="\n")
    else:
        print("\n".join(_lines(report)), flush=True)  # noqa: T201


def _tables(report: Report) -> Iterator[RenderableType]:
    overview = Table(
        title=f"{report.status} at {report.time}", title_style=_STYLES[report.status], title_justify="left"
    )
    for name in ("Topic", "Check", "", "Found"):
        overview.add_column(name, overflow="fold")
    topic = None
    for result in report.results:
        verdict = Text(result.verdict, _STYLES[result.verdict])
        overview.add_row("" if result.topic == topic else result.topic, result.title, verdict, Text(result.summary))
        topic = result.topic
    yield overview
    for result in report.results:
        if result.verdict in ("warn", "fail") or len(result.rows) > 1:
            yield Text(f"\n{result.title}: {result.verdict}", _STYLES[result.verdict])
            yield from _details(result)


def _details(result: Result) -> Iterator[RenderableType]:
    if result.rows:
        table = Table()
        for key in result.rows[0]:
            table.add_column(heading(key), overflow="fold")
        for row in result.rows[:_SHOWN]:
            table.add_row(*(Text(cell(key, row.get(key))) for key in result.rows[0]))
        yield table
    if len(result.rows) > _SHOWN:
        yield Text(f"and {len(result.rows) - _SHOWN} more: --json")
    for sentence in result.advice:
        yield Text(f"  - {sentence}")
    for statement in result.sql:
        yield Text(f"    {statement}")


def _lines(report: Report) -> Iterator[str]:
    """Give a line for each check that grep can find, and what belongs to it behind a tab."""
    yield f"{report.status}\t{report.time}"
    for result in report.results:
        yield f"{result.verdict}\t{result.name}\t{result.summary}"
        if result.verdict in ("warn", "fail") or len(result.rows) > 1:
            for row in result.rows[:_SHOWN]:
                yield "\t" + ", ".join(f"{heading(key)}: {cell(key, value)}" for key, value in row.items())
        for line in (*result.advice, *result.sql):
            yield f"\t{line}"

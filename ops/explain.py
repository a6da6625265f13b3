"""`db explain`: how PostgreSQL runs a statement, and what of it costs time.

The plan alone changes nothing. With --analyze the statement runs, in a transaction that is rolled back: what it wrote
is undone, but sequences keep what they gave out (manual 9.17).
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migrations import statements
from migrations.statements import Malformed
from shared import db, deadline
from shared.db.drivers import Connection
from shared.db.session import identifier
from shared.errors import Refused

TIMEOUT = 60.0  # seconds that the statement may run
MANY = 1000  # rows below which nothing is worth an index
WASTE = 10  # rows read for one that is kept
MISJUDGED = 20  # times that an estimate is off before it misleads the planner

Plan = Mapping[str, Any]


def run(
    statement: Annotated[str, typer.Argument(help="One SQL statement; $1, $2 stand for values not given.")],
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Run it, in a transaction that is rolled back, and measure.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object.")] = False,
) -> None:
    """Show the plan of a statement, and read it: missing indexes, wrong estimates, spills."""
    found = explain(statement, analyze=analyze)
    advice = list(read(found["Plan"]))
    if as_json:
        print(json.dumps({"plan": found, "advice": advice}, indent=2))  # noqa: T201
        return
    console = Console(soft_wrap=True, highlight=False)
    for line in _lines(found["Plan"]):
        console.print(line)
    if "Execution Time" in found:
        console.print(f"Planned in {found['Planning Time']:.1f} ms, run in {found['Execution Time']:.1f} ms")
    for sentence in advice or ["Nothing in it stands out."]:
        console.print(Text(f"  - {sentence}"))


def explain(statement: str, *, analyze: bool) -> Plan:
    """Ask for the plan; gives what EXPLAIN (FORMAT JSON) says. Raises Refused, and DatabaseError as the server does."""
    sql = _the_one(statement)
    parameters = max((int(number) for number in re.findall(r"\$([0-9]+)", sql)), default=0)
    if analyze and parameters:
        raise Refused(
            "A statement with $1 can be planned, but not run.",
            solutions=["Write values in place of $1, $2, or leave --analyze out."],
        )
    options = "ANALYZE, BUFFERS, FORMAT JSON" if analyze else "FORMAT JSON"
    with deadline.within(TIMEOUT), closing(db.open_connection()) as connection:
        connection.begin("BEGIN" if analyze else "BEGIN READ ONLY")
        try:
            rows = connection.fetch(f"EXPLAIN ({options}) {_plannable(connection, sql, parameters)}")
        finally:
            if not connection.closed:
                connection.end("ROLLBACK")
    plan = rows[0]["QUERY PLAN"]
    found: Plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]
    return found


def _plannable(connection: Connection, sql: str, parameters: int) -> str:
    """Give what EXPLAIN takes: the statement, or where values are left open a prepared one, planned for any.

    EXPLAIN (GENERIC_PLAN) is for this too, but wants the simple query protocol, which the drivers do not use.
    """
    if not parameters:
        return sql
    name = f"explain_{secrets.token_hex(4)}"  # it stays until the connection is closed, behind a pooler for longer
    connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.execute(f"PREPARE {name} AS {sql}")
    return f"EXECUTE {name} ({', '.join(['NULL'] * parameters)})"


def _the_one(statement: str) -> str:
    """Give the statement without its semicolon. Raises Refused where there is not exactly one."""
    try:
        found = statements.split(statement if statement.rstrip().endswith(";") else f"{statement}\n;")
    except Malformed as error:
        raise Refused(f"This is not one SQL statement: {error.message}.") from None
    if len(found) != 1:
        raise Refused(f"Found {len(found)} statements.", solutions=["Give one, in quotes: db explain 'SELECT ...'"])
    return found[0].text.rstrip().removesuffix(";")


def read(plan: Plan) -> Iterator[str]:
    """Say what stands out in a plan and in those below it."""
    yield from _reading(plan)
    for below in plan.get("Plans", ()):
        yield from read(below)


def _reading(plan: Plan) -> Iterator[str]:
    loops = plan.get("Actual Loops", 1)
    rows = plan.get("Actual Rows", plan.get("Plan Rows", 0)) * loops
    removed = plan.get("Rows Removed by Filter", 0) * loops
    table = plan.get("Relation Name")
    if table is not None and "Filter" in plan and plan["Node Type"] == "Seq Scan":
        wasted = removed >= MANY and removed >= WASTE * max(rows, 1)
        costly = "Actual Loops" not in plan and plan["Total Cost"] >= MANY and rows * WASTE < plan["Total Cost"]
        if wasted or costly:
            read_for = f"It reads the whole of {table} for {rows:.0f} rows ({plan['Filter']})"
            yield f"{read_for}; an index may help: {_index(table, plan)}"
    elif table is not None and removed >= MANY and removed >= WASTE * max(rows, 1):
        yield (
            f"The index on {table} finds {removed:.0f} rows that {plan.get('Filter')} throws away again: "
            f"a more selective one may help: {_index(table, plan)}"
        )
    yield from _measured(plan, table, loops)


def _measured(plan: Plan, table: str | None, loops: int) -> Iterator[str]:
    """Read what only --analyze tells."""
    if "Actual Rows" not in plan or loops == 0:
        return
    actual, expected = max(plan["Actual Rows"], 1), max(plan["Plan Rows"], 1)
    if (
        table is not None
        and max(actual, expected) * loops >= MANY
        and not 1 / MISJUDGED < actual / expected < MISJUDGED
    ):
        yield f"The planner expected {expected} rows of {table} and got {actual:.0f}: ANALYZE {identifier(table)};"
    if plan.get("Sort Space Type") == "Disk":
        kib = plan["Sort Space Used"]
        yield f"A sort of {kib} kB went to disk: a higher work_mem for this statement, or an index in that order."
    if plan.get("Hash Batches", 1) > 1:
        yield f"A hash went to disk in {plan['Hash Batches']} parts: a higher work_mem for this statement."
    if table is not None and plan.get("Heap Fetches", 0) >= MANY:
        yield f"The index alone would do, but {plan['Heap Fetches']} rows were looked up: VACUUM {identifier(table)};"
    if table is not None and plan["Node Type"] == "Seq Scan" and loops >= 100:
        yield f"{table} is read from end to end {loops} times: the columns of the join want an index there."


def _index(table: str, plan: Plan) -> str:
    """Write the index for a filter: columns compared for equality first, then one with a range."""
    text = re.sub(r"'(?:[^']|'')*'(::[\w ]+)?", "", str(plan["Filter"]))
    found = re.findall(r'(?:\w+\.)?("[^"]+"|\b[a-z_]\w*\b)\)?(?:::[\w ]+)? (=|<|>|<=|>=) ', text)
    equal = list(dict.fromkeys(name for name, operator in found if operator == "="))
    ranges = [name for name, operator in found if operator != "=" and name not in equal]
    columns = ", ".join([*equal, *ranges[:1]]) or "..."
    return f"CREATE INDEX CONCURRENTLY ON {identifier(table)} ({columns});"


def _lines(plan: Plan, depth: int = 0) -> Iterator[Text]:
    """Write a plan as a tree, a node in a line and its conditions below it."""
    indent = "   " * depth
    line = Text.assemble(f"{indent}{'-> ' if depth else ''}", (plan["Node Type"], "bold"))
    if "Index Name" in plan:
        line.append(f" using {plan['Index Name']}")
    if "Relation Name" in plan:
        line.append(f" on {plan['Relation Name']}")
    numbers = f"about {plan['Plan Rows']} rows, cost {plan['Total Cost']:.0f}"
    if "Actual Rows" in plan:
        numbers += (
            f"; {plan['Actual Rows']:.0f} rows in {plan['Actual Total Time']:.1f} ms, {plan['Actual Loops']} times"
        )
    line.append(f"  ({numbers})", "dim")
    yield line
    for name in ("Index Cond", "Filter", "Hash Cond", "Join Filter", "Sort Key"):
        if name in plan:
            value = plan[name] if isinstance(plan[name], str) else ", ".join(plan[name])
            yield Text(f"{indent}   {'   ' if depth else ''}{name}: {value}")
    for below in plan.get("Plans", ()):
        yield from _lines(below, depth + 1)

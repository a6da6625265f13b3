"""What sessions do: long statements, who waits for whom, and transactions that somebody left open."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from shared.health import thresholds
from shared.health.masking import masked_statement
from shared.health.result import Check, Finding, Threshold
from shared.health.server import Server
from shared.health.units import counted

# A role that may not see what others do gets their rows with this in the place of the query, and without a state.
_HIDDEN = "<insufficient privilege>"
_LONG = """
SELECT pid, usename::text AS role, application_name AS application, datname::text AS database,
    greatest(0, extract(epoch FROM clock_timestamp() - query_start))::float8 AS running_seconds,
    wait_event_type AS waits_for, query
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datid IS NOT NULL
    AND (state IN ('active', 'fastpath function call') AND backend_type = 'client backend'
        OR query = '<insufficient privilege>')
ORDER BY running_seconds DESC NULLS LAST, pid
"""
_IDLE = """
SELECT pid, usename::text AS role, application_name AS application, datname::text AS database,
    greatest(0, extract(epoch FROM clock_timestamp() - state_change))::float8 AS idle_seconds,
    greatest(0, extract(epoch FROM clock_timestamp() - xact_start))::float8 AS transaction_seconds,
    query
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datid IS NOT NULL
    AND (state LIKE 'idle in transaction%' OR query = '<insufficient privilege>')
ORDER BY idle_seconds DESC NULLS LAST, pid
"""
# pg_locks is visible to everybody. pg_blocking_pids stops the lock manager for a moment: asked only for who waits.
_BLOCKED = """
WITH waiting AS (
    SELECT pid, pg_blocking_pids(pid) AS blocked_by, min(waitstart) AS since, min(mode) AS mode,
        min(CASE WHEN database = (SELECT oid FROM pg_database WHERE datname = current_database())
            THEN relation::regclass::text END) AS relation
    FROM pg_locks WHERE NOT granted GROUP BY pid
), involved AS (
    SELECT pid FROM waiting UNION SELECT unnest(blocked_by) FROM waiting
)
SELECT i.pid, coalesce(w.blocked_by, '{}') AS blocked_by, w.mode, w.relation,
    CASE WHEN w.pid IS NOT NULL
        THEN greatest(0, extract(epoch FROM clock_timestamp() - coalesce(w.since, clock_timestamp())))::float8
    END AS waiting_seconds,
    a.usename::text AS role, a.application_name AS application, a.state,
    greatest(0, extract(epoch FROM clock_timestamp() - a.xact_start))::float8 AS transaction_seconds, a.query
FROM involved AS i LEFT JOIN waiting AS w USING (pid) LEFT JOIN pg_stat_activity AS a USING (pid)
ORDER BY waiting_seconds DESC NULLS FIRST, i.pid
"""
_SHOWN = 20


def _long_running_queries(server: Server) -> Finding:
    return _oldest(
        server, _LONG, "running_seconds", thresholds.LONG_QUERY, "No statement runs long",
        "{n} running, the oldest for {age:g} s",
        "Cancel it, if nobody needs its answer; `db explain` tells what it is slow at.", "pg_cancel_backend",
    )  # fmt: skip


def _idle_in_transaction(server: Server) -> Finding:
    return _oldest(
        server, _IDLE, "idle_seconds", thresholds.IDLE_IN_TRANSACTION, "No transaction was left open",
        "{n} open and idle, the oldest for {age:g} s",
        "Find what holds a transaction while it does something else; the statement shown is its last.",
        "pg_terminate_backend",
    )  # fmt: skip


def _oldest(
    server: Server, sql: str, key: str, threshold: Threshold, none: str, some: str, advice: str, function: str
) -> Finding:
    """Judge the sessions that a query gives by the one that does it longest."""
    found = server.rows(sql)
    rows = [_masked(row) for row in found if row["query"] != _HIDDEN]
    hidden = len(found) - len(rows)
    age = round(rows[0][key], 1) if rows else 0.0
    verdict = threshold.verdict(age)
    summary = f"{some.format(n=len(rows), age=age)}." if rows else f"{none}."
    to_run = [f"SELECT {function}({row['pid']});" for row in rows if threshold.verdict(row[key]) != "ok"]
    if hidden:
        summary += f" Not visible: what {counted(hidden, 'session')} of other roles do."
        to_run.append(server.grant)
    return Finding(summary, age, verdict, tuple(rows[:_SHOWN]), (advice,) if verdict != "ok" else (), tuple(to_run))


def _blocked_sessions(server: Server) -> Finding:
    rows = list(_tree(server.rows(_BLOCKED)))
    waits = [row["waiting_seconds"] for row in rows if row["waiting_seconds"] is not None]
    if not waits:
        return Finding("Nobody waits for a lock.", 0.0)
    longest = round(max(waits), 1)
    verdict = thresholds.BLOCKED.verdict(longest)
    roots = [row["pid"] for row in rows if not row["blocked_by"] and row["pid"]]
    advice: tuple[str, ...] = ()
    sql: tuple[str, ...] = ()
    if verdict != "ok":
        advice = ("End the session at the root of the tree, unless it is about to finish: its work is rolled back.",)
        sql = tuple(f"SELECT pg_terminate_backend({pid});" for pid in roots)
    if any(row["pid"] == 0 for row in rows):
        advice += ("Process 0 is a prepared transaction: see pg_prepared_xacts, and COMMIT or ROLLBACK PREPARED it.",)
    waiting, others = counted(len(waits), "session"), counted(len(roots), "other")
    summary = f"{waiting} waiting for locks of {others}, for {longest:g} s at most."
    if any(row["query"] == _HIDDEN for row in rows):
        summary += " Not visible: what sessions of other roles do."
        sql += (server.grant,)
    return Finding(summary, longest, verdict, tuple(rows[: 2 * _SHOWN]), advice, sql)


def _tree(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each session once, below the one it waits for that is nearest to a root, with its depth."""
    left = {row["pid"]: row for row in found}
    waiters: dict[int, list[dict[str, Any]]] = {pid: [] for pid in left}
    roots = []
    # First those that wait for nobody. Where they wait in a circle, which the server ends in a second, any of them.
    for root in sorted(found, key=lambda row: len(row["blocked_by"]) > 0):
        if left.pop(root["pid"], None) is None:
            continue
        roots.append(root)
        nearest = deque([root])
        while nearest:
            blocker = nearest.popleft()["pid"]
            for row in [row for row in left.values() if blocker in row["blocked_by"]]:
                waiters[blocker].append(left.pop(row["pid"]))
                nearest.append(row)

    def below(row: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        yield {"depth": depth, **_masked(row)}
        for waiter in waiters[row["pid"]]:
            yield from below(waiter, depth + 1)

    for root in roots:
        yield from below(root, 0)


def _masked(row: dict[str, Any]) -> dict[str, Any]:
    return row if row["query"] == _HIDDEN else row | {"query": masked_statement(row["query"])}


CHECKS = (
    Check("long_running_queries", "Long-running queries", "The oldest statement that runs", _long_running_queries, "s",
          thresholds.LONG_QUERY),
    Check("blocked_sessions", "Blocked sessions", "Who waits for whose lock, as a tree; the longest wait",
          _blocked_sessions, "s", thresholds.BLOCKED),
    Check("idle_in_transaction", "Idle in transaction", "The transaction that is open and idle for longest",
          _idle_in_transaction, "s", thresholds.IDLE_IN_TRANSACTION),
)  # fmt: skip

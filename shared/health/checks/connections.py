"""Connections: those of this process, and everybody's against what the server has room for."""

from typing import Any

from shared import db
from shared.health import thresholds
from shared.health.result import Check, Finding
from shared.health.server import Server
from shared.health.units import counted

# Without its last part an application_name of ours says where it runs, and with it which process (session.py).
# Background workers have no user; what an unprivileged role may not see is NULL.
_CONNECTIONS = """
SELECT coalesce(usename::text, usesysid::text) AS role, coalesce(datname::text, '') AS database,
    regexp_replace(application_name, '/[0-9a-f]{6}$', '') AS application, coalesce(state, 'not visible') AS state,
    count(*) AS connections, count(DISTINCT substring(application_name FROM '/([0-9a-f]{6})$')) AS processes
FROM pg_stat_activity
WHERE usesysid IS NOT NULL AND datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2, 3, 4
"""
_PROCESSES = """
SELECT count(DISTINCT application_name) AS processes FROM pg_stat_activity
WHERE usename = current_user AND datname = current_database() AND application_name ~ '/[0-9a-f]{6}$'
"""
_SHOWN = 30


def _pool(server: Server) -> Finding:
    counts = db.get_pool().statistics()
    in_use = counts["in_use"] - server.is_ours
    percent = round(100 * in_use / counts["max_size"], 1)
    processes, facts = server.row(_PROCESSES)["processes"], server.facts
    room = facts.slots // counts["max_size"]
    row = counts | {"in_use": in_use, "room_for_processes": room, "processes_connected": processes}
    verdict, advice = thresholds.POOL_IN_USE.verdict(percent), []
    if verdict != "ok" or counts["waiting"]:
        verdict = "warn"
        advice.append("Look for slow statements, and for connections that are held while something slow is done.")
        advice.append("Where an external pooler stands before the database, DATABASE_POOL_MAX may be larger.")
    summary = (
        f"{in_use} of {counts['max_size']} in use in this process, {counted(counts['waiting'], 'caller')} waiting; the "
        f"server has room for {counted(room, 'such process')} at their fullest, and {processes} connected."
    )
    return Finding(summary, percent, verdict, (row,), tuple(advice))


def _connections(server: Server) -> Finding:
    groups, facts = server.rows(_CONNECTIONS), server.facts
    limits = [("the server has for ordinary roles", facts.slots, _count(groups))]
    if facts.role_limit >= 0:
        limits.append((f'the role "{facts.role}" may have', facts.role_limit, _count(groups, role=facts.role)))
    if facts.database_limit >= 0:
        here = _count(groups, database=facts.database)
        limits.append((f'the database "{facts.database}" may have', facts.database_limit, here))
    used_percent, who, limit, used = max((round(100 * n / max(1, most), 1), w, most, n) for w, most, n in limits)
    verdict = thresholds.CONNECTIONS.verdict(used_percent)
    advice: tuple[str, ...] = ()
    if verdict != "ok":
        advice = (
            "Make the pools smaller (DATABASE_POOL_MAX), and bound the instances (reservedConcurrency on Lambda).",
            "Put an external pooler in between, or raise max_connections.",
        )
    hidden = _count(groups, state="not visible")
    summary = f"{used} of {limit} connections that {who} are open ({used_percent:g} %)."
    if hidden:
        summary += f" Not visible: what {counted(hidden, 'session')} of other roles do."
    sql: tuple[str, ...] = (server.grant,) if hidden else ()
    if verdict != "ok" and who.startswith("the role"):
        sql += (f"ALTER ROLE {server.role} CONNECTION LIMIT {2 * limit};",)
    return Finding(summary, used_percent, verdict, tuple(groups[:_SHOWN]), advice, sql)


def _count(groups: list[dict[str, Any]], **where: str) -> int:
    return sum(row["connections"] for row in groups if all(row[key] == value for key, value in where.items()))


CHECKS = (
    Check("pool", "Pool of this process", "Connections in use, callers that wait, and how many such processes the "
          "server has room for; warns where somebody waits, too", _pool, "%", thresholds.POOL_IN_USE),
    Check("connections", "Connections", "All connections against max_connections without the reserved ones, and "
          "against the limits of role and database; by role, application and state", _connections, "%",
          thresholds.CONNECTIONS),
)  # fmt: skip

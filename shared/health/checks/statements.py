"""The slowest statements, where the extension pg_stat_statements counts them."""

from shared.db.session import identifier
from shared.errors import DatabaseError
from shared.health import thresholds
from shared.health.masking import masked_statement
from shared.health.result import Check, Finding
from shared.health.server import Server

# By total time: what is worth most when it is made faster. Utility statements are counted with their literals.
_SLOWEST = """
SELECT s.calls::int8 AS calls, (s.total_exec_time / 1000)::float8 AS total_seconds,
    (s.mean_exec_time / 1000)::float8 AS mean_seconds, (s.max_exec_time / 1000)::float8 AS max_seconds,
    s.rows::int8 AS rows, r.rolname::text AS role, s.query
FROM {schema}.pg_stat_statements AS s LEFT JOIN pg_roles AS r ON r.oid = s.userid
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY s.total_exec_time DESC LIMIT 20
"""
_HOW = (
    "Add pg_stat_statements to shared_preload_libraries, and restart the server; at most providers it is there, or a "
    "switch in their console."
)


def _slow_statements(server: Server) -> Finding:
    schema = server.facts.statements_schema
    if schema is None:
        return Finding(
            "The extension pg_stat_statements is not in this database.",
            verdict="unknown", advice=(_HOW,), sql=("CREATE EXTENSION pg_stat_statements;",),
        )  # fmt: skip
    try:
        found = server.rows(_SLOWEST.format(schema=identifier(schema)))
    except DatabaseError as error:
        if error.sqlstate == "55000":  # the extension is there, its library is not
            return Finding("pg_stat_statements is not loaded.", verdict="unknown", advice=(_HOW,))
        if error.sqlstate == "42703":  # undefined_column
            return Finding(
                "pg_stat_statements is of an older version than the server.",
                verdict="unknown", sql=("ALTER EXTENSION pg_stat_statements UPDATE;",),
            )  # fmt: skip
        raise
    rows = tuple(row | {"query": masked_statement(row["query"])} for row in found)
    slow = [row["mean_seconds"] for row in rows if row["calls"] >= thresholds.SLOW_MIN_CALLS]
    slowest = round(max(slow, default=0.0), 3)
    verdict = thresholds.SLOW_STATEMENT.verdict(slowest)
    summary = f"The slowest of those that take most time takes {slowest:g} s on average."
    advice = ("Look at its plan: `db explain --analyze` runs it in a transaction that is rolled back.",)
    if not server.facts.reads_all:
        summary += " Not visible: statements of other roles."
    return Finding(
        summary, slowest, verdict, rows, advice if verdict != "ok" else (),
        () if server.facts.reads_all else (server.grant,),
    )  # fmt: skip


CHECKS = (
    Check("slow_statements", "Slowest statements", "Mean time, among the 20 that take most time in all; needs "
          "pg_stat_statements", _slow_statements, "s", thresholds.SLOW_STATEMENT),
)  # fmt: skip

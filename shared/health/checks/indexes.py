"""Indexes that are missing, broken, unused or there twice. What is to be run builds and drops them CONCURRENTLY."""

from typing import Any

from shared.health import thresholds
from shared.health.result import Check, Finding, Threshold
from shared.health.server import Server
from shared.health.units import counted

_TRANSACTION_NONE = "Put it into a migration of its own with `-- transaction: none`."

# An index serves a foreign key if its first columns are the key's, in any order. One that leaves out NULLs does too.
_SERVES = """
    i.indrelid = c.conrelid AND i.indisvalid AND i.indnkeyatts >= cardinality(c.conkey)
    AND (string_to_array(i.indkey::text, ' ')::int2[])[1:cardinality(c.conkey)] @> c.conkey
"""
_MISSING = f"""
SELECT c.conrelid::regclass::text AS "table", c.conname::text AS "constraint", c.confrelid::regclass::text AS refers_to,
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.position)
        FROM unnest(c.conkey) WITH ORDINALITY AS k (number, position)
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number) AS columns,
    greatest(t.reltuples, s.n_live_tup, 0)::int8 AS estimated_rows
FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid
LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.conrelid
WHERE c.contype = 'f' AND c.conparentid = 0 AND NOT EXISTS (
    SELECT FROM pg_index AS i JOIN pg_class AS n ON n.oid = i.indexrelid JOIN pg_am AS m ON m.oid = n.relam
    WHERE {_SERVES} AND m.amname IN ('btree', 'hash')
        AND (i.indpred IS NULL OR cardinality(c.conkey) = 1 AND pg_get_expr(i.indpred, i.indrelid) = (
            SELECT format('(%I IS NOT NULL)', attname) FROM pg_attribute
            WHERE attrelid = c.conrelid AND attnum = c.conkey[1])))
ORDER BY estimated_rows DESC, 1, 2
"""  # noqa: S608 - a condition of ours
# One that is being built is not broken; which it is, an unprivileged role may not see.
_INVALID = """
SELECT i.indexrelid::regclass::text AS "index", i.indrelid::regclass::text AS "table", i.indisunique AS is_unique,
    c.relname ~ '_cc(new|old)[0-9]*$' AS is_remainder,
    c.relpages::int8 * current_setting('block_size')::int AS size_bytes
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) AND c.relkind = 'i' AND NOT EXISTS (
    SELECT FROM pg_stat_progress_create_index AS p
    WHERE p.datname = current_database() AND (p.relid = i.indrelid OR p.relid IS NULL))
ORDER BY 1
"""
# Unique ones are rules, and those for foreign keys serve deletions, which may be rare.
_UNUSED = f"""
SELECT s.indexrelid::regclass::text AS "index", s.relid::regclass::text AS "table",
    n.relpages::int8 * current_setting('block_size')::int AS size_bytes,
    (coalesce(t.seq_scan, 0) + coalesce(t.idx_scan, 0))::int8 AS table_scans,
    extract(epoch FROM clock_timestamp() - d.stats_reset)::float8 AS counted_for_seconds
FROM pg_stat_user_indexes AS s JOIN pg_index AS i USING (indexrelid) JOIN pg_class AS n ON n.oid = s.indexrelid
JOIN pg_stat_user_tables AS t ON t.relid = s.relid
JOIN pg_stat_database AS d ON d.datname = current_database()
WHERE s.idx_scan = 0 AND i.indisvalid AND NOT (i.indisunique OR i.indisexclusion OR i.indisreplident)
    AND n.relpages::int8 * current_setting('block_size')::int >= {thresholds.UNUSED_MIN_BYTES}
    AND coalesce(t.seq_scan, 0) + coalesce(t.idx_scan, 0) >= {thresholds.UNUSED_MIN_SCANS}
    AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.contype = 'f' AND {_SERVES})
ORDER BY size_bytes DESC, 1
"""  # noqa: S608 - numbers and a condition of ours
# Of several that are alike, one that a constraint or replication needs stays, else a unique one, else the oldest. The
# expressions are written out only of those that are alike in everything else.
_DUPLICATE = """
WITH alike AS (
    SELECT *, count(*) OVER same AS alike FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indisvalid AND i.indrelid >= 16384 AND c.relpersistence <> 't'
    WINDOW same AS (PARTITION BY indrelid, relam, indkey::text, indnkeyatts, indclass::text, indcollation::text,
        indoption::text, indexprs IS NULL, indpred IS NULL)
), ranked AS (
    SELECT a.indexrelid, a.indrelid, a.indisunique, a.relpages,
        EXISTS (SELECT FROM pg_constraint WHERE conindid = a.indexrelid) OR a.indisreplident OR a.indisclustered
            AS is_needed,
        first_value(a.indexrelid) OVER same AS kept
    FROM alike AS a WHERE alike > 1
    WINDOW same AS (
        PARTITION BY indrelid, relam, indkey::text, indnkeyatts, indclass::text, indcollation::text, indoption::text,
            pg_get_expr(indexprs, indrelid), pg_get_expr(indpred, indrelid)
        ORDER BY EXISTS (SELECT FROM pg_constraint WHERE conindid = a.indexrelid) DESC, indisreplident DESC,
            indisclustered DESC, indisunique DESC, indexrelid
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
SELECT r.indexrelid::regclass::text AS "index", r.kept::regclass::text AS same_as,
    r.indrelid::regclass::text AS "table", r.relpages::int8 * current_setting('block_size')::int AS size_bytes
FROM ranked AS r JOIN pg_index AS k ON k.indexrelid = r.kept
WHERE r.indexrelid <> r.kept AND NOT r.is_needed
    AND (NOT r.indisunique OR k.indisunique AND k.indnullsnotdistinct = (
        SELECT indnullsnotdistinct FROM pg_index WHERE indexrelid = r.indexrelid))
ORDER BY size_bytes DESC, 1
"""
_SHOWN = 30


def _missing_foreign_key_indexes(server: Server) -> Finding:
    rows = server.rows(_MISSING)
    large = [row for row in rows if row["estimated_rows"] >= thresholds.FOREIGN_KEY_MIN_ROWS]
    summary = "Every foreign key has an index." if not rows else (
        f"Without one: {counted(len(large), 'foreign key')} of large tables, {len(rows) - len(large)} of small."
    )  # fmt: skip
    return _judged(
        thresholds.MISSING_INDEXES, len(large), rows, summary,
        "Deleting or changing a row that is referred to reads the whole table for each. " + _TRANSACTION_NONE,
        [f"CREATE INDEX CONCURRENTLY ON {row['table']} ({row['columns']});" for row in large],
    )  # fmt: skip


def _invalid_indexes(server: Server) -> Finding:
    rows = server.rows(_INVALID)
    return _judged(
        thresholds.INVALID_INDEXES, len(rows), rows,
        f"Invalid: {counted(len(rows), 'index')}." if rows else "Every index is valid.",
        "Building it failed or was broken off: build it again, and drop what a REINDEX left behind.",
        [
            f"{'DROP INDEX CONCURRENTLY' if row['is_remainder'] else 'REINDEX INDEX CONCURRENTLY'} {row['index']};"
            for row in rows
        ],
    )  # fmt: skip


def _unused_indexes(server: Server) -> Finding:
    rows = server.rows(_UNUSED)
    advice = "Standbys count for themselves: look there too. Was it counted for long enough? Drop it by a migration. "
    return _judged(
        thresholds.UNUSED_INDEXES, len(rows), rows,
        f"Never used: {counted(len(rows), 'index')}." if rows else "Every large index is used.",
        advice + _TRANSACTION_NONE,
        [f"DROP INDEX CONCURRENTLY {row['index']};" for row in rows],
    )  # fmt: skip


def _duplicate_indexes(server: Server) -> Finding:
    rows = server.rows(_DUPLICATE)
    return _judged(
        thresholds.DUPLICATE_INDEXES, len(rows), rows,
        f"There twice: {counted(len(rows), 'index')}." if rows else "No index is there twice.",
        "Drop one of them by a migration. " + _TRANSACTION_NONE,
        [f"DROP INDEX CONCURRENTLY {row['index']};" for row in rows],
    )  # fmt: skip


def _judged(
    threshold: Threshold, value: int, rows: list[dict[str, Any]], summary: str, advice: str, sql: list[str]
) -> Finding:
    verdict = threshold.verdict(value)
    return Finding(
        summary, value, verdict, tuple(rows[:_SHOWN]), (advice,) if verdict != "ok" else (), tuple(sql[:_SHOWN])
    )


CHECKS = (
    Check("missing_foreign_key_indexes", "Foreign keys without an index", "Those of large tables",
          _missing_foreign_key_indexes, "indexes", thresholds.MISSING_INDEXES),
    Check("invalid_indexes", "Invalid indexes", "Left behind where CREATE INDEX CONCURRENTLY or REINDEX failed",
          _invalid_indexes, "indexes", thresholds.INVALID_INDEXES),
    Check("unused_indexes", "Unused indexes", "Never read since the counters began; neither unique nor for a foreign "
          "key", _unused_indexes, "indexes", thresholds.UNUSED_INDEXES),
    Check("duplicate_indexes", "Duplicate indexes", "Alike in table, columns, order, expression and condition",
          _duplicate_indexes, "indexes", thresholds.DUPLICATE_INDEXES),
)  # fmt: skip

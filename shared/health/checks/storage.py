"""What is stored: sizes, what happens to the tables, how much is found in memory, and numbers that run out."""

from shared.health import thresholds
from shared.health.result import Check, Finding, Row
from shared.health.server import Server
from shared.health.units import bytes_text, counted

_SIZE = """
SELECT current_database()::text AS database, pg_database_size(current_database())::int8 AS size_bytes,
    temp_bytes::int8 AS temporary_bytes, deadlocks::int8 AS deadlocks, conflicts::int8 AS conflicts,
    xact_commit::int8 AS committed, xact_rollback::int8 AS rolled_back,
    extract(epoch FROM clock_timestamp() - stats_reset)::float8 AS counted_for_seconds
FROM pg_stat_database WHERE datname = current_database()
"""
# To measure a table takes a lock of it, so of those that a migration holds or waits for the estimate must do.
_LARGEST = """
WITH estimated AS (
    SELECT c.oid, greatest(c.reltuples, s.n_live_tup, 0)::int8 AS estimated_rows,
        (c.relpages + coalesce(t.relpages, 0) + (
            SELECT coalesce(sum(n.relpages), 0) FROM pg_index AS i JOIN pg_class AS n ON n.oid = i.indexrelid
            WHERE i.indrelid = c.oid))::int8 * current_setting('block_size')::int AS estimated_bytes
    FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid
    LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
    ORDER BY estimated_bytes DESC, estimated_rows DESC LIMIT 50
), measured AS (
    SELECT e.*, NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.relation = e.oid AND l.mode = 'AccessExclusiveLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS is_free
    FROM estimated AS e
)
SELECT oid::regclass::text AS "table",
    CASE WHEN is_free THEN pg_total_relation_size(oid) ELSE estimated_bytes END AS size_bytes,
    CASE WHEN is_free THEN pg_indexes_size(oid) END AS indexes_bytes, estimated_rows
FROM measured ORDER BY size_bytes DESC NULLS LAST, 1 LIMIT 15
"""
_TABLES = """
SELECT relid::regclass::text AS "table", n_live_tup AS live_rows, n_dead_tup AS dead_rows, seq_scan AS sequential_scans,
    idx_scan AS index_scans, n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_del AS deleted,
    extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8 AS last_vacuum_seconds,
    extract(epoch FROM clock_timestamp() - greatest(last_analyze, last_autoanalyze))::float8 AS last_analyze_seconds,
    n_mod_since_analyze AS changed_since_analyze
FROM pg_stat_user_tables
ORDER BY n_tup_ins + n_tup_upd + n_tup_del + seq_scan + coalesce(idx_scan, 0) DESC, 1
"""
_CACHE = """
SELECT blks_hit::int8 AS found_blocks, blks_read::int8 AS read_blocks,
    extract(epoch FROM clock_timestamp() - stats_reset)::float8 AS counted_for_seconds,
    current_setting('shared_buffers') AS shared_buffers
FROM pg_stat_database WHERE datname = current_database()
"""
# A sequence belongs to the column whose default or identity it is. It ends where it says, or where the column's type
# does, whatever comes first; one that begins again never ends.
_SEQUENCES = """
WITH columns AS (
    SELECT d.objid AS sequence, d.refobjid AS "table", d.refobjsubid AS number FROM pg_depend AS d
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
        AND d.deptype IN ('a', 'i')
    UNION
    SELECT d.refobjid, f.adrelid, f.adnum FROM pg_depend AS d JOIN pg_attrdef AS f ON f.oid = d.objid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
), readable AS (
    SELECT s.*, has_sequence_privilege(s.seqrelid, 'SELECT, USAGE') AS is_readable
    FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
    WHERE NOT s.seqcycle AND c.relpersistence = 'p'
), ends AS (
    SELECT r.seqrelid, r.is_readable, r.seqincrement, k."table", a.attname, a.atttypid,
        a.attidentity <> '' AS is_identity,
        CASE WHEN r.is_readable THEN pg_sequence_last_value(r.seqrelid) END AS last_value,
        CASE WHEN r.seqincrement > 0 THEN least(r.seqmax, t.highest) ELSE greatest(r.seqmin, -t.highest - 1) END
            AS last,
        t.highest < r.seqmax OR r.seqtypid = a.atttypid AS is_types_end
    FROM readable AS r LEFT JOIN columns AS k ON k.sequence = r.seqrelid
    LEFT JOIN pg_attribute AS a ON a.attrelid = k."table" AND a.attnum = k.number
    LEFT JOIN LATERAL (SELECT CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
        WHEN 'int8'::regtype THEN 9223372036854775807 END AS highest) AS t ON true
)
SELECT seqrelid::regclass::text AS sequence, "table"::regclass::text AS "table", quote_ident(attname) AS "column",
    format_type(atttypid, NULL) AS type, last_value, last::int8 AS last_possible, is_readable,
    coalesce(is_identity, false) AS is_identity, coalesce(is_types_end, false) AS is_types_end,
    coalesce(round(100.0 * last_value / nullif(last, 0), 1), 0)::float8 AS used_percent
FROM ends ORDER BY used_percent DESC, 1, 2, 3
"""
_SHOWN = 20


def _database_size(server: Server) -> Finding:
    row = server.row(_SIZE)
    return Finding(f"{bytes_text(row['size_bytes'])}.", row["size_bytes"], rows=(row,))


def _largest_tables(server: Server) -> Finding:
    rows = server.rows(_LARGEST)
    if not rows:
        return Finding("There is no table.")
    total = rows[0]["size_bytes"]
    return Finding(f"{rows[0]['table']} has {bytes_text(total)} with its indexes.", total, rows=tuple(rows))


def _table_statistics(server: Server) -> Finding:
    rows = server.rows(_TABLES)
    never = [
        row["table"] for row in rows
        if row["last_analyze_seconds"] is None and row["live_rows"] >= thresholds.UNANALYZED_MIN_ROWS
    ]  # fmt: skip
    verdict = thresholds.NEVER_ANALYZED.verdict(len(never))
    summary = f"{counted(len(rows), 'table')}, with {sum(row['live_rows'] for row in rows):,} rows by estimate."
    if server.facts.is_standby:  # it counts only what it does itself, and ANALYZE runs on the primary
        return Finding(summary, rows=tuple(rows[:_SHOWN]))
    if never:
        summary += f" Never analyzed: {len(never)}."
    sql = tuple(f"ANALYZE {table};" for table in never[:_SHOWN])
    return Finding(summary, len(never), verdict, tuple(rows[:_SHOWN]), sql=sql)


def _cache_hit_ratio(server: Server) -> Finding:
    row = server.row(_CACHE)
    asked = row["found_blocks"] + row["read_blocks"]
    if asked < thresholds.CACHE_MIN_BLOCKS:
        return Finding("Too little was read yet to tell.", rows=(row,))
    percent = round(100 * row["found_blocks"] / asked, 2)
    verdict = thresholds.CACHE_HITS.verdict(percent)
    advice: tuple[str, ...] = ()
    if verdict != "ok":
        advice = (
            "Look at the slowest statements first: a missing index reads whole tables.",
            f"shared_buffers is {row['shared_buffers']}: a quarter of the machine's memory is usual.",
        )
    return Finding(f"{percent:g} % of the blocks were found in memory.", percent, verdict, (row,), advice)


def _sequences(server: Server) -> Finding:
    found = server.rows(_SEQUENCES)
    unreadable = {row["sequence"] for row in found if not row["is_readable"]}
    rows = [row for row in found if row["is_readable"]]
    percent = rows[0]["used_percent"] if rows else 0.0
    verdict = thresholds.SEQUENCES.verdict(percent)
    near = [row for row in rows if thresholds.SEQUENCES.verdict(row["used_percent"]) != "ok"]
    summary = f"{percent:g} % of {rows[0]['sequence']} are used." if rows and percent else "None is near its end."
    advice: tuple[str, ...] = ()
    if near:
        advice = ("Changing a column's type writes the table anew and locks it: plan it while there is time.",)
    sql = [statement for row in near for statement in _wider(row)]
    if unreadable:
        summary += f" Not readable: {counted(len(unreadable), 'sequence')}."
        sql += [f"GRANT SELECT ON SEQUENCE {name} TO {server.role};" for name in sorted(unreadable)]
    shown = [{name: value for name, value in row.items() if not name.startswith("is_")} for row in rows[:_SHOWN]]
    return Finding(summary, percent, verdict, tuple(shown), advice, tuple(sql))


def _wider(row: Row) -> list[str]:
    """Give what makes room: for the column, and for a sequence that ends before its column's type does."""
    if not row["is_types_end"] or row["type"] == "bigint":
        return [f"ALTER SEQUENCE {row['sequence']} NO {'MAXVALUE' if row['last_possible'] > 0 else 'MINVALUE'};"]
    change = [f"ALTER TABLE {row['table']} ALTER COLUMN {row['column']} TYPE bigint;"]
    return change if row["is_identity"] else [*change, f"ALTER SEQUENCE {row['sequence']} AS bigint;"]


CHECKS = (
    Check("database_size", "Database size", "Size, and what the database counts of itself", _database_size, "bytes"),
    Check("largest_tables", "Largest tables", "With indexes and TOAST", _largest_tables, "bytes"),
    Check("table_statistics", "Tables", "Rows, reads and writes of the busiest; tables of which the planner knows "
          "nothing", _table_statistics, "tables", thresholds.NEVER_ANALYZED),
    Check("cache_hit_ratio", "Cache hit ratio", "Blocks that were found in shared_buffers", _cache_hit_ratio, "%",
          thresholds.CACHE_HITS),
    Check("sequences", "Sequences", "The one nearest its end, by its own limit and by its column's type", _sequences,
          "%", thresholds.SEQUENCES),
)  # fmt: skip

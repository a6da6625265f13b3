"""Vacuum: dead rows, whether autovacuum runs, and how old transaction ids are."""

from shared.health import thresholds
from shared.health.result import Check, Finding
from shared.health.server import Server
from shared.health.units import counted

_DEAD = f"""
SELECT relid::regclass::text AS "table", n_live_tup AS live_rows, n_dead_tup AS dead_rows,
    round(100.0 * n_dead_tup / (n_live_tup + n_dead_tup), 1)::float8 AS dead_percent,
    extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8 AS last_vacuum_seconds,
    (vacuum_count + autovacuum_count)::int8 AS vacuums
FROM pg_stat_user_tables WHERE n_dead_tup >= {thresholds.DEAD_MIN_ROWS} ORDER BY dead_percent DESC, 1 LIMIT 20
"""  # noqa: S608 - a number of ours
_AUTOVACUUM = """
SELECT current_setting('autovacuum') AS autovacuum, current_setting('track_counts') AS track_counts,
    current_setting('autovacuum_max_workers')::int AS max_workers
"""
_SWITCHED_OFF = """
SELECT oid::regclass::text AS "table", greatest(reltuples, 0)::int8 AS estimated_rows FROM pg_class
WHERE relkind IN ('r', 'm') AND EXISTS (
    SELECT FROM pg_options_to_table(reloptions) WHERE option_name = 'autovacuum_enabled'
        AND lower(option_value) IN ('false', 'off', 'no', '0', 'f', 'n', 'fa', 'fal', 'fals', 'of'))
ORDER BY 1
"""
_AGES = """
SELECT datname::text AS database, age(datfrozenxid)::int8 AS transaction_ids,
    mxid_age(datminmxid)::int8 AS multixact_ids
FROM pg_database ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC
"""
_AGE_LIMITS = """
SELECT current_setting('autovacuum_freeze_max_age')::int8 AS transaction_ids,
    current_setting('autovacuum_multixact_freeze_max_age')::int8 AS multixact_ids,
    current_setting('vacuum_failsafe_age')::int8 AS failsafe
"""
_OLDEST = """
SELECT oid::regclass::text AS "table" FROM pg_class WHERE relkind IN ('r', 'm', 't') AND relpersistence <> 't'
ORDER BY age(relfrozenxid) DESC LIMIT 5
"""
_WHAT_HOLDS_BACK = (
    "Look for what holds vacuum back: an old open transaction, a prepared one (pg_prepared_xacts), an unused "
    "replication slot, or a table whose vacuum is cancelled by locks again and again."
)


def _dead_rows(server: Server) -> Finding:
    rows = server.rows(_DEAD)
    worst = rows[0]["dead_percent"] if rows else 0.0
    verdict = thresholds.DEAD_ROWS.verdict(worst)
    if verdict == "ok":
        summary = "Autovacuum keeps up." if not rows else f"At most {worst:g} % of a table's rows are dead."
        return Finding(summary, worst, rows=tuple(rows))
    table = rows[0]["table"]
    late = [row["table"] for row in rows if thresholds.DEAD_ROWS.verdict(row["dead_percent"]) != "ok"]
    return Finding(
        f"{worst:g} % of the rows of {table} are dead.",
        worst,
        verdict,
        tuple(rows),
        (_WHAT_HOLDS_BACK,),
        (
            *(f"VACUUM (ANALYZE) {name};" for name in late),
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.05);",
        ),
    )


def _autovacuum(server: Server) -> Finding:
    settings, tables = server.row(_AUTOVACUUM), server.rows(_SWITCHED_OFF)
    off = [name for name in ("autovacuum", "track_counts") if settings[name] != "on"]
    sql = [f"ALTER SYSTEM SET {name} = on;" for name in off] + (["SELECT pg_reload_conf();"] if off else [])
    sql += [f"ALTER TABLE {row['table']} RESET (autovacuum_enabled);" for row in tables]
    if off:
        return Finding(
            f"{' and '.join(off)} is off: dead rows stay, and in the end the server takes no more writes.",
            "off", "fail", tuple(tables), ("Switch it on, as an administrator.",), tuple(sql),
        )  # fmt: skip
    if tables:
        return Finding(
            f"It is on, and switched off for {counted(len(tables), 'table')}.", "on", "warn", tuple(tables),
            ("Where a migration switched it off for a bulk load, it forgot to switch it on.",), tuple(sql),
        )  # fmt: skip
    return Finding(f"It is on, with up to {settings['max_workers']} workers.", "on")


def _wraparound(server: Server) -> Finding:
    ages, limits = server.rows(_AGES), server.row(_AGE_LIMITS)
    rows = [row | {"limit_percent": round(max(100 * row[name] / limits[name] for name in _COUNTED), 1)} for row in ages]
    rows.sort(key=lambda row: -row["limit_percent"])
    worst = rows[0]
    # The server itself takes at least 105 % of autovacuum_freeze_max_age for it (manual 19.11).
    failsafe = max(105.0, 100 * limits["failsafe"] / limits["transaction_ids"])
    threshold = thresholds.WRAPAROUND._replace(fail=max(failsafe, thresholds.WRAPAROUND_WARN))
    verdict = threshold.verdict(worst["limit_percent"])
    summary = (
        f'The oldest ids of the database "{worst["database"]}" are at {worst["limit_percent"]:g} % of the age at which '
        "autovacuum must freeze them."
    )
    advice: tuple[str, ...] = ()
    sql: tuple[str, ...] = ()
    if verdict != "ok":
        advice = (_WHAT_HOLDS_BACK, f'In the database "{worst["database"]}":')
        here = worst["database"] == server.facts.database
        oldest = [row["table"] for row in server.rows(_OLDEST)] if here else []
        sql = tuple(f"VACUUM (FREEZE) {table};" for table in oldest) or ("VACUUM (FREEZE);",)
    return Finding(summary, worst["limit_percent"], verdict, tuple(rows), advice, sql, threshold)


_COUNTED = ("transaction_ids", "multixact_ids")


CHECKS = (
    Check("dead_rows", "Dead rows", "The table with the greatest part of dead rows", _dead_rows, "%",
          thresholds.DEAD_ROWS),
    Check("autovacuum", "Autovacuum", "Fails where it is off, warns where it is off for a table", _autovacuum),
    Check("wraparound", "Wrap-around", "Age of the oldest transaction and multixact ids of any database, against the "
          "age at which autovacuum must freeze them", _wraparound, "%", thresholds.WRAPAROUND),
)  # fmt: skip

"""Replication: how far standbys are behind, and slots that keep WAL for somebody who does not come."""

from shared.health import thresholds
from shared.health.result import Check, Finding, worst
from shared.health.server import Server
from shared.health.units import bytes_text, counted

_STANDBYS = """
SELECT application_name AS standby, state, sync_state,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        replay_lsn)::int8 AS lag_bytes,
    extract(epoch FROM replay_lag)::float8 AS lag_seconds
FROM pg_stat_replication ORDER BY lag_bytes DESC NULLS FIRST, 1
"""
_AS_STANDBY = """
SELECT pg_get_wal_replay_pause_state() AS replay, EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL)
        AS is_connected,
    pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::int8 AS lag_bytes,
    CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
        ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END AS lag_seconds
"""
# What is new in 17 says in one word what 16 knows of logical slots only.
_SLOTS = """
SELECT slot_name::text AS slot, slot_type AS type, active AS is_active, wal_status,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
        restart_lsn)::int8 AS retained_bytes,
    current_setting('max_slot_wal_keep_size') AS most, {since} AS inactive_seconds, {reason} AS invalid_because
FROM pg_replication_slots ORDER BY active, retained_bytes DESC NULLS LAST, 1
"""
_SINCE_17 = {
    "since": "extract(epoch FROM clock_timestamp() - inactive_since)::float8", "reason": "invalidation_reason",
}  # fmt: skip
_UNTIL_16 = {"since": "NULL::float8", "reason": "CASE WHEN conflicting THEN 'conflict with recovery' END"}


def _replication_lag(server: Server) -> Finding:
    return _as_standby(server) if server.facts.is_standby else _as_primary(server)


def _as_primary(server: Server) -> Finding:
    rows = server.rows(_STANDBYS)
    if not rows:
        return Finding("No standby is connected.", 0)
    hidden = [row for row in rows if row["state"] is None]
    if hidden:
        return Finding(
            f"Not visible: how far {counted(len(hidden), 'connected standby')} are.",
            verdict="unknown", rows=tuple(rows), sql=(server.grant,),
        )  # fmt: skip
    lag = max(row["lag_bytes"] or 0 for row in rows)
    verdict = thresholds.REPLICATION_BYTES.verdict(lag)
    advice = ("Look at the standby: its load, its disk, the network, a long query there that replay waits for.",)
    summary = f"{len(rows)} connected, at most {bytes_text(lag)} behind."
    return Finding(summary, lag, verdict, tuple(rows), advice if verdict != "ok" else ())


def _as_standby(server: Server) -> Finding:
    row = server.row(_AS_STANDBY)
    verdict, advice, sql = thresholds.REPLICATION_BYTES.verdict(row["lag_bytes"]), [], []
    if row["replay"] != "not paused":
        verdict = worst((verdict, "warn"))
        advice.append("Replay was paused by somebody: what is read here grows old.")
        sql.append("SELECT pg_wal_replay_resume();")
    if not row["is_connected"]:
        verdict = worst((verdict, "warn"))
        advice.append("It receives nothing from the primary: see this server's log. It may restore from an archive.")
    if row["lag_bytes"] is None:
        summary = "This standby has received nothing by streaming."
    else:
        summary = f"This standby is {bytes_text(row['lag_bytes'])} behind what it has received."
    return Finding(summary, row["lag_bytes"], verdict, (row,), tuple(advice), tuple(sql))


def _replication_slots(server: Server) -> Finding:
    rows = server.rows(_SLOTS.format(**_SINCE_17 if server.facts.major >= 17 else _UNTIL_16))
    idle = [row for row in rows if not row["is_active"]]
    keeping = [row for row in idle if row["wal_status"] not in (None, "lost")]
    lost = [row for row in rows if row["wal_status"] == "lost" or row["invalid_because"]]
    kept = max((max(1, row["retained_bytes"] or 0) for row in keeping), default=0)
    verdict = worst((thresholds.SLOT_BYTES.verdict(kept), "warn" if lost else "ok"))
    if verdict == "ok":
        summary = f"{counted(len(rows), 'slot')}, none of them unused." if rows else "There is no slot."
        return Finding(summary, 0, rows=tuple(rows))
    advice = [
        "Start whoever should read it, or drop it: it keeps WAL until the disk is full, and holds back vacuum.",
        "max_slot_wal_keep_size bounds what a slot may keep; -1, the default, does not.",
    ]
    if lost:
        advice.append("What a lost slot needed is gone: build its standby or subscriber anew.")
    summary = f"{len(idle)} of {counted(len(rows), 'slot')} not in use, keeping {bytes_text(kept)} of WAL."
    names = {row["slot"]: None for row in (*keeping, *lost) if not row["is_active"]}
    sql = tuple(f"SELECT pg_drop_replication_slot('{name}');" for name in names)  # [a-z0-9_] only (manual 26.2.6.1)
    return Finding(summary, kept, verdict, tuple(rows), tuple(advice), sql)


CHECKS = (
    Check("replication_lag", "Replication lag", "The standby that is farthest behind; on a standby, what it received "
          "and did not replay; warns, too, where replay is paused or nothing is received", _replication_lag, "bytes",
          thresholds.REPLICATION_BYTES),
    Check("replication_slots", "Replication slots", "WAL that the worst inactive slot keeps; warns where one is lost",
          _replication_slots, "bytes", thresholds.SLOT_BYTES),
)  # fmt: skip

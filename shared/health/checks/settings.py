"""Settings that hurt, and checkpoints, which say whether max_wal_size does."""

from typing import NamedTuple

from shared.health import thresholds
from shared.health.result import Check, Finding, Verdict, worst
from shared.health.server import Server

# What a new session gets: our own limits for this transaction do not count.
_SETTINGS = "SELECT name, reset_val AS value, context, pending_restart FROM pg_settings"


class Rule(NamedTuple):
    """A setting, the values that hurt, and why."""

    name: str
    bad: tuple[str, ...]
    good: str
    why: str
    verdict: Verdict = "warn"


RULES = (
    Rule("fsync", ("off",), "on", "A crash of the machine loses or destroys data", "fail"),
    Rule("full_page_writes", ("off",), "on", "A crash of the machine may destroy data", "fail"),
    Rule("zero_damaged_pages", ("on",), "off", "Damaged pages are emptied, their rows are lost", "fail"),
    Rule("ignore_checksum_failure", ("on",), "off", "Damaged pages are read as if they were sound", "fail"),
    Rule("synchronous_commit", ("off",), "on", "A crash loses what was committed a moment before"),
    Rule("track_activities", ("off",), "on", "Nobody sees what sessions do, these checks neither"),
    Rule("default_transaction_read_only", ("on",), "off", "Every write is refused; some do it on a full disk"),
    Rule("password_encryption", ("md5",), "scram-sha-256", "New passwords are kept as MD5 hashes"),
    Rule("statement_timeout", ("0",), "30s", "A statement that nobody waits for any more runs on"),
    Rule("idle_in_transaction_session_timeout", ("0",), "60s", "A transaction that somebody forgot keeps its locks"),
    Rule("lock_timeout", ("0",), "10s", "A statement that waits for a lock has all others wait behind it"),
    Rule("enable_indexscan", ("off",), "on", "The planner does without indexes: left from an experiment"),
    Rule("enable_seqscan", ("off",), "on", "The planner avoids the simplest plan: left from an experiment"),
    Rule("enable_hashjoin", ("off",), "on", "The planner does without a way to join: left from an experiment"),
    Rule("enable_nestloop", ("off",), "on", "The planner does without a way to join: left from an experiment"),
    Rule("enable_mergejoin", ("off",), "on", "The planner does without a way to join: left from an experiment"),
)

# 17 moved them to a view of their own.
_CHECKPOINTS = {
    True: "SELECT num_timed::int8 AS timed, num_requested::int8 AS requested, "
    "current_setting('max_wal_size') AS max_wal_size FROM pg_stat_checkpointer",
    False: "SELECT checkpoints_timed::int8 AS timed, checkpoints_req::int8 AS requested, "
    "current_setting('max_wal_size') AS max_wal_size FROM pg_stat_bgwriter",
}


def _settings(server: Server) -> Finding:
    found = {row["name"]: row for row in server.rows(_SETTINGS)}
    broken = [rule for rule in RULES if rule.name in found and found[rule.name]["value"] in rule.bad]
    rows = [
        {
            "setting": rule.name,
            "value": found[rule.name]["value"],
            "better": rule.good,
            "why": rule.why,
            "verdict": rule.verdict,
        }
        for rule in broken
    ]
    waiting = [name for name, row in found.items() if row["pending_restart"]]
    why = "Changed, and waits for a restart"
    rows += [{"setting": name, "value": found[name]["value"], "why": why, "verdict": "warn"} for name in waiting]
    # Where sessions may choose, the role is the place: others of the same server may have reasons of their own.
    of_role = [rule for rule in broken if found[rule.name]["context"] == "user"]
    of_server = [rule for rule in broken if rule not in of_role]
    sql = [f"ALTER ROLE {server.role} SET {rule.name} = '{rule.good}';" for rule in of_role]
    sql += [f"ALTER SYSTEM SET {rule.name} = '{rule.good}';" for rule in of_server]
    sql += ["SELECT pg_reload_conf();"] if of_server else []
    if not rows:
        return Finding("None hurts.", 0)
    names = ", ".join([rule.name for rule in broken] + waiting)
    verdict = worst([rule.verdict for rule in broken] + ["warn" for _ in waiting])
    return Finding(f"{len(rows)} hurt: {names}.", len(rows), verdict, tuple(rows), sql=tuple(sql))


def _checkpoints(server: Server) -> Finding:
    row = server.row(_CHECKPOINTS[server.facts.major >= 17])
    made = row["timed"] + row["requested"]
    if made < thresholds.CHECKPOINTS_MIN:
        return Finding("Too few were made yet to tell.", rows=(row,))
    percent = round(100 * row["requested"] / made, 1)
    verdict = thresholds.CHECKPOINTS.verdict(percent)
    summary = f"{percent:g} % came before their time."
    if verdict == "ok":
        return Finding(summary, percent, rows=(row,))
    advice = f"Raise max_wal_size, which is {row['max_wal_size']}: each checkpoint makes the writes after it dearer."
    sql = ("ALTER SYSTEM SET max_wal_size = '4GB';", "SELECT pg_reload_conf();")
    return Finding(summary, percent, verdict, (row,), (advice,), sql)


CHECKS = (
    Check("settings", "Settings that hurt", "Settings that risk data, that let one session stop the others, or that "
          "wait for a restart; warns or fails by what each risks", _settings, "settings"),
    Check("checkpoints", "Checkpoints", "The part that came because WAL had filled max_wal_size", _checkpoints, "%",
          thresholds.CHECKPOINTS),
)  # fmt: skip

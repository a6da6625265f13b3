"""How long ago `db backup` last backed this database up."""

from shared.db.session import identifier
from shared.health import thresholds
from shared.health.result import Check, Finding
from shared.health.server import Server

# As JSON, because a database that was migrated long ago lacks the column.
_LAST = """
SELECT round((extract(epoch FROM now() - (to_jsonb(s) ->> 'backed_up_at')::timestamptz) / 86400)::numeric, 1)::float8
    AS days
FROM {schema}.migration_state s
"""


def _last_backup(server: Server) -> Finding:
    schema = server.facts.migrated_schema
    rows = server.rows(_LAST.format(schema=identifier(schema))) if schema is not None else []
    days = rows[0]["days"] if rows else None
    if days is None:
        return Finding("`db backup` never made one; a provider's own are not seen from here.")
    verdict = thresholds.BACKUP.verdict(days)
    advice = ("Look whether its schedule still runs: `db backups` lists what is there.",) if verdict != "ok" else ()
    return Finding(f"The last one by `db backup` is {days:g} days old.", days, verdict, advice=advice)


CHECKS = (
    Check("last_backup", "Last backup", "Age of the last backup by `db backup`; a provider's own are not seen",
          _last_backup, "days", thresholds.BACKUP),
)  # fmt: skip

"""Whether the schema is the one that this code was written for."""

from shared.db.schema_head import REVISION
from shared.db.schema_state import compare
from shared.db.session import identifier
from shared.health.result import Check, Finding
from shared.health.server import Server

_VERSION = "SELECT version_num::text AS version FROM {schema}.alembic_version"


def _schema(server: Server) -> Finding:
    schema = server.facts.migrated_schema
    found = server.rows(_VERSION.format(schema=identifier(schema))) if schema is not None else []
    version = max((row["version"] for row in found), default=None)
    if version is None:
        return Finding("No migration was ever applied.", "behind", "fail", advice=("Run `db migrate`, or deploy.",))
    row = {"database": version, "code": REVISION}
    state = compare(version)
    if state == "equal":
        return Finding(f"It is at {REVISION}, as this code expects.", state, rows=(row,))
    if state == "ahead":
        return Finding(f"It is at {version}, ahead of this code: newer code migrated it.", state, rows=(row,))
    return Finding(
        f"It is at {version}, behind this code, which expects {REVISION}.",
        state,
        "fail",
        (row,),
        ("Run `db migrate`, or deploy: a deploy migrates first. `db migrate status` shows what is pending.",),
    )


CHECKS = (
    Check("schema", "Schema", "behind: fails, as the migrations did not run; equal; or ahead, where newer code "
          "migrated it", _schema),
)  # fmt: skip

"""All checks, by topic, in the order in which a report shows them."""

from collections.abc import Mapping

from shared.health.checks import (
    backup,
    connection,
    connections,
    indexes,
    replication,
    schema,
    sessions,
    settings,
    statements,
    storage,
    vacuum,
)
from shared.health.result import Check

TOPICS: Mapping[str, tuple[Check, ...]] = {
    "connection": connection.CHECKS,
    "connections": connections.CHECKS,
    "sessions": sessions.CHECKS,
    "schema": schema.CHECKS,
    "storage": storage.CHECKS,
    "indexes": indexes.CHECKS,
    "vacuum": vacuum.CHECKS,
    "replication": replication.CHECKS,
    "statements": statements.CHECKS,
    "settings": settings.CHECKS,
    "backup": backup.CHECKS,
}

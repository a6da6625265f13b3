"""Indexes that only production-like environments have: they pay once there is much data, and cost on every write.

`migrations/indexes.py` builds them at the end of a deploy. They are no part of the schema: migrations do not make them,
and `alembic check` leaves them out (`NAMES`). This file imports nothing heavy.
"""

from typing import NamedTuple


class PerformanceIndex(NamedTuple):
    """One index; `definition` is what pg_get_indexdef shows behind the table, so that it can be compared."""

    name: str
    table: str
    definition: str
    why: str
    unique: bool = False

    @property
    def statement(self) -> str:
        """Give the statement that builds it without stopping writers (manual, CREATE INDEX)."""
        kind = "UNIQUE INDEX" if self.unique else "INDEX"
        return f'CREATE {kind} CONCURRENTLY "{self.name}" ON "{self.table}" {self.definition}'


INDEXES = (
    PerformanceIndex(
        "subscriptions_due_idx",
        "subscriptions",
        "USING btree (current_period_end) WHERE (status <> 'canceled'::text)",
        "Renewals ask what ends next; canceled subscriptions stay as history, and soon are most of the table.",
    ),
    PerformanceIndex(
        "users_admin_idx",
        "users",
        "USING btree (id) WHERE (role = 'admin'::text)",
        "Every deploy asks whether an admin exists; without it that may read the whole table.",
    ),
)

NAMES = frozenset(index.name for index in INDEXES)

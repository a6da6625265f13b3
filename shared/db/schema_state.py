"""Where a database's schema stands against this code, by the revision in alembic_version. Imports next to nothing."""

from typing import Literal

from shared.db.schema_head import REVISION

State = Literal["behind", "equal", "ahead"]


def compare(version: str | None) -> State:
    """Compare a database's revision with this code's; None is a database that was never migrated.

    Revisions are timestamps in one chain, so the later one is the newer one. Ahead is what going back to an older
    deployment leaves.
    """
    if version == REVISION:
        return "equal"
    return "ahead" if version is not None and version > REVISION else "behind"

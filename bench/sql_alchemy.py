"""The same read by SQLAlchemy: an Engine on psycopg, and a statement built for each read, as applications do."""

from typing import Any

import sqlalchemy

_ITEM = sqlalchemy.table("item", *(sqlalchemy.column(name) for name in ("id", "name", "price")))


def engine(url: str, **options: Any) -> sqlalchemy.Engine:
    """Make an Engine; it opens no connection."""
    return sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), **options)


def item(id: int) -> sqlalchemy.Select[Any]:
    """Build the statement that reads a row."""
    return sqlalchemy.select(_ITEM).where(_ITEM.c.id == id)

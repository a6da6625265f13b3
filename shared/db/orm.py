"""A SQLAlchemy Engine over this process's pool, for who wants Core or the ORM.

It shares the pool's connections, limits and deadlines with `shared.db`. No endpoint imports this unless its author
does: SQLAlchemy costs half of a cold start. docs/SQLALCHEMY.md has examples.
"""

import threading

from sqlalchemy import Engine, create_engine

from shared import db
from shared.db import dialect
from shared.db.connector import Connector

_lock = threading.Lock()
_engine: tuple[Connector, Engine] | None = None


def get_engine() -> Engine:
    """Give this process's engine; no connection is opened before one is needed.

    A connection that it lends belongs to the pool, so `Engine.dispose()` has nothing to do: `close_db()` closes them.
    SQLAlchemy's exceptions have the driver's as `orig`, and ours as the cause of that; their text has no parameters.
    Raises ConfigurationError where DATABASE_URL or another variable is missing or wrong.
    """
    global _engine
    connector = db.get_connector()
    with _lock:
        if _engine is None or _engine[0] is not connector:
            name = dialect.PooledPg8000.driver if connector.driver == "pg8000" else dialect.PooledPsycopg.driver
            # Reset by the pool, which does it without SQLAlchemy too.
            engine = create_engine(f"postgresql+pooled_{name}://", pool_reset_on_return=None, hide_parameters=True)
            _engine = connector, engine
        return _engine[1]

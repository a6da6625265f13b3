"""SQLAlchemy's dialects for psycopg and pg8000 over this process's pool: they ask the server nothing of their own.

SQLAlchemy's own would send eight statements when they first connect, set the session's isolation level, and leave it to
the next borrower. Here the server's version comes from what it reports while connecting, and a transaction's properties
go with its BEGIN.
"""

import re
from typing import Any, NoReturn

from sqlalchemy import exc, pool
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.postgresql.pg8000 import PGDialect_pg8000
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import IsolationLevel

from shared import db
from shared.db.dbapi import Loan
from shared.errors import DatabaseUnavailable, DeadlineExceeded, PoolTimeout

_OLDEST = "16"  # the oldest PostgreSQL that this project supports, where a proxy hides the version


class _OverPool(PGDialect):
    """What both dialects do in place of their driver's. What SQLAlchemy calls a DB-API connection is a Loan."""

    poolclass = pool.NullPool

    def create_connect_args(self, url: URL) -> tuple[list[str], dict[str, Any]]:  # noqa: ARG002
        return [], {}

    def connect(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Borrow a connection of the pool that this process has now."""
        module: Any = self.loaded_dbapi
        try:
            return Loan(db.get_pool().lease(), module)
        except PoolTimeout as error:
            raise exc.TimeoutError(" ".join([error.message, *error.solutions])) from error
        except (DatabaseUnavailable, DeadlineExceeded) as error:
            raise module.OperationalError(error.message) from error

    def on_connect(self) -> None:
        """Configure nothing: it would be done again at each checkout, to a connection that has it already."""

    def initialize(self, connection: Connection) -> None:
        """Learn from the first connection what SQLAlchemy wants to know, without asking."""
        loan: Any = connection.connection.dbapi_connection
        digits = re.match(r"[\d.]+", loan.parameter("server_version") or "")
        version = tuple(int(part) for part in (digits[0] if digits else _OLDEST).strip(".").split("."))
        self.server_version_info = version
        self.supports_virtual_generated_columns = version >= (18,)
        self._backslash_escapes = loan.parameter("standard_conforming_strings") == "off"

    def do_close(self, loan: Any) -> None:
        loan.close()

    def do_terminate(self, loan: Any) -> None:
        loan.terminate()

    def get_driver_connection(self, loan: Any) -> Any:
        return loan.driver_connection()

    def is_disconnect(self, error: Exception, loan: Any, cursor: Any) -> bool:  # noqa: ARG002
        """Tell whether the connection is lost: then the driver has closed it."""
        # SQLAlchemy hands over its proxy, or what that holds, or nothing where none was made.
        loan = getattr(loan, "dbapi_connection", loan)
        return loan is not None and bool(loan.closed)

    # What a transaction is like. SQLAlchemy calls the `set` methods before one, and `reset` at the end of the loan.

    def set_isolation_level(self, loan: Any, level: str) -> None:
        loan.autocommit = level == "AUTOCOMMIT"
        loan.isolation_level = None if loan.autocommit else level

    def reset_isolation_level(self, loan: Any) -> None:
        loan.autocommit = False
        loan.isolation_level = None

    def get_isolation_level(self, loan: Any) -> IsolationLevel:
        """Ask the server, which knows the default of the role."""
        begun = loan.in_transaction
        with loan.cursor() as cursor:
            level: IsolationLevel = cursor.execute("SHOW transaction_isolation").fetchone()[0].upper()
        if not begun:
            loan.rollback()
        return level

    def set_readonly(self, loan: Any, value: bool) -> None:
        loan.read_only = value

    def get_readonly(self, loan: Any) -> bool:
        return bool(loan.read_only)

    def set_deferrable(self, loan: Any, value: bool) -> None:
        loan.deferrable = value

    def get_deferrable(self, loan: Any) -> bool:
        return bool(loan.deferrable)

    # Two-phase commit.

    def do_begin_twophase(self, *args: Any) -> NoReturn:  # noqa: ARG002
        """Refuse: what an instance has prepared and not committed when it is frozen keeps its locks for ever."""
        raise exc.InvalidRequestError(
            "Two-phase transactions are not supported: one that is prepared outlives its connection, and keeps its"
            " locks and hinders VACUUM until somebody ends it. Use begin(), and for a second system an outbox table."
        )

    do_prepare_twophase = do_rollback_twophase = do_commit_twophase = do_recover_twophase = do_begin_twophase


class PooledPsycopg(_OverPool, PGDialect_psycopg):
    """psycopg over the pool. An hstore column is converted by SQLAlchemy: psycopg would look its type up first."""

    supports_statement_cache = True
    _has_native_hstore = False


class PooledPg8000(_OverPool, PGDialect_pg8000):
    """pg8000 over the pool."""

    supports_statement_cache = True


registry.register("postgresql.pooled_psycopg", __name__, PooledPsycopg.__name__)
registry.register("postgresql.pooled_pg8000", __name__, PooledPg8000.__name__)

"""How `alembic revision --autogenerate` writes SQL expressions (checks, defaults, index predicates) as Python."""

import re
from typing import Any

from alembic.ddl.postgresql import PostgresqlImpl
from sqlalchemy import ClauseElement

# What SQLAlchemy's text() takes for a parameter.
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=[\w$]+(?![:\w$]))")


class VerbatimImpl(PostgresqlImpl):
    """Alembic's PostgreSQL, but an expression is what it was after a round trip through the generated file.

    Alembic compiles it for the driver, which doubles every %, and forgets to escape a colon for text().
    """

    __dialect__ = "postgresql"  # takes the place of Alembic's own

    def render_ddl_sql_expr(
        self, expr: ClauseElement, is_server_default: bool = False, is_index: bool = False, **kw: Any
    ) -> str:
        """Render the expression, with each % single and each colon that looks like a parameter escaped."""
        text = super().render_ddl_sql_expr(expr, is_server_default=is_server_default, is_index=is_index, **kw)
        return _PARAMETER.sub(r"\:", text.replace("%%", "%"))

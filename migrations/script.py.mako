"""What `alembic revision` writes before migrations/hook.py turns it into an .sql file."""
<%text>
from alembic import op
import sqlalchemy as sa</%text>
${imports if imports else ""}

message = ${repr(message)}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}

"""The tables as SQLAlchemy metadata: for Alembic's comparison, and for those who write queries with SQLAlchemy Core.

The migrations are the source. A test holds that this file, `create_all` and a migrated database say the same. Endpoints
do not import it: SQLAlchemy costs half of a cold start.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

# The names that PostgreSQL itself gives where a migration gives none.
NAMING_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}

metadata = MetaData(naming_convention=NAMING_CONVENTION)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True, comment="Surrogate key")


def _created_at(comment: str = "When the row was added") -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment=comment)


def _updated_at() -> Column[object]:
    return Column(
        "updated_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When the row was last changed; kept by a trigger",
    )


users = Table(
    "users",
    metadata,
    _id(),
    Column(
        "email",
        Text,
        nullable=False,
        comment="Address to sign in with, as the person writes it; unique whatever its case",
    ),
    Column(
        "password_hash",
        Text,
        nullable=False,
        comment="argon2 hash with its parameters and salt, in PHC string format",
    ),
    Column("role", Text, nullable=False, server_default="user", comment="admin or user"),
    Column(
        "must_change_password",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="True until the person has replaced an initial password",
    ),
    _created_at(),
    _updated_at(),
    CheckConstraint("email ~ '^[^@[:space:]]+@[^@[:space:]]+$' AND length(email) <= 254", name="email"),
    CheckConstraint("starts_with(password_hash, '$argon2')", name="password_hash"),
    CheckConstraint("role IN ('admin', 'user')", name="role"),
    comment="People who sign in",
)
Index("users_lower_email_key", func.lower(users.c.email), unique=True)

sessions = Table(
    "sessions",
    metadata,
    _id(),
    Column(
        "user_id",
        BigInteger,
        ForeignKey("users.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
        comment="Whose session it is",
    ),
    Column(
        "token_hash",
        LargeBinary,
        nullable=False,
        comment="SHA-256 of the token in the cookie; the token itself is not kept",
    ),
    Column("ip_address", INET, comment="Address that signed in"),
    Column("user_agent", Text, comment="Browser that signed in, as it calls itself, cut to 512 characters"),
    _created_at("When the person signed in"),
    Column(
        "expires_at",
        DateTime(timezone=True),
        nullable=False,
        index=True,
        comment="When the session ends by itself",
    ),
    Column(
        "last_seen_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When the session was last used; behind by an hour at most",
    ),
    UniqueConstraint("token_hash"),
    CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
    CheckConstraint("length(user_agent) <= 512", name="user_agent"),
    CheckConstraint("expires_at > created_at", name="expires_at"),
    comment="Signed-in browsers",
)

plans = Table(
    "plans",
    metadata,
    _id(),
    Column("code", Text, nullable=False, comment="Name of the plan in code and URLs; never changes"),
    Column("name", Text, nullable=False, comment="Name of the plan as people read it"),
    Column("price_cents", Integer, nullable=False, comment="Price of one interval in hundredths of the currency"),
    Column("currency", Text, nullable=False, comment="ISO 4217 code in capitals"),
    Column("billing_interval", Text, nullable=False, comment="month or year"),
    Column(
        "features",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="What the plan includes, as a JSON object",
    ),
    Column(
        "active",
        Boolean,
        nullable=False,
        server_default=text("true"),
        comment="False where the plan is no longer offered; its subscriptions go on",
    ),
    _created_at(),
    _updated_at(),
    UniqueConstraint("code"),
    CheckConstraint("code ~ '^[a-z][a-z0-9_]{0,62}$'", name="code"),
    CheckConstraint("name <> ''", name="name"),
    CheckConstraint("price_cents >= 0", name="price_cents"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("billing_interval IN ('month', 'year')", name="billing_interval"),
    CheckConstraint("jsonb_typeof(features) = 'object'", name="features"),
    comment="What people can subscribe to",
)

subscriptions = Table(
    "subscriptions",
    metadata,
    _id(),
    Column(
        "user_id",
        BigInteger,
        ForeignKey("users.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
        comment="Who subscribed",
    ),
    Column(
        "plan_id",
        BigInteger,
        ForeignKey("plans.id", ondelete="RESTRICT"),
        nullable=False,
        index=True,
        comment="To which plan",
    ),
    Column(
        "status",
        Text,
        nullable=False,
        server_default="active",
        comment="trialing, active, past_due or canceled",
    ),
    Column(
        "current_period_start",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When the period that is paid for began",
    ),
    Column(
        "current_period_end",
        DateTime(timezone=True),
        nullable=False,
        comment="When it ends, and the next one is due",
    ),
    Column(
        "canceled_at",
        DateTime(timezone=True),
        comment="When it was canceled; empty as long as it is not",
    ),
    _created_at(),
    _updated_at(),
    CheckConstraint("status IN ('trialing', 'active', 'past_due', 'canceled')", name="status"),
    CheckConstraint("current_period_end > current_period_start", name="current_period_end"),
    CheckConstraint("(status = 'canceled') = (canceled_at IS NOT NULL)", name="canceled_at"),
    comment="Who has which plan, now and before",
)
Index(
    "subscriptions_one_current_per_user_key",
    subscriptions.c.user_id,
    unique=True,
    postgresql_where=text("status <> 'canceled'"),
)

throttles = Table(
    "throttles",
    metadata,
    Column("key", LargeBinary, primary_key=True, comment="SHA-256 of what was tried and by whom"),
    Column("attempts", Integer, nullable=False, comment="Attempts since the count began"),
    Column(
        "expires_at",
        DateTime(timezone=True),
        nullable=False,
        index=True,
        comment="When the count begins anew",
    ),
    CheckConstraint("octet_length(key) = 32", name="key"),
    comment="How often something was tried of late",
)

health_samples = Table(
    "health_samples",
    metadata,
    Column(
        "taken_at",
        DateTime(timezone=True),
        primary_key=True,
        comment="The minute; whoever writes its row makes the check",
    ),
    Column("status", Text, comment="Worst verdict; empty while the check runs, or where it was killed"),
    Column(
        "verdicts",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="Verdict of each check, by its name",
    ),
    Column(
        "numbers",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="Value of each check that measures something, by its name",
    ),
    Column(
        "told",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="True where people know of it, so that the next is compared with it",
    ),
    CheckConstraint("status IN ('ok', 'warn', 'fail', 'unknown')", name="status"),
    CheckConstraint("jsonb_typeof(verdicts) = 'object'", name="verdicts"),
    CheckConstraint("jsonb_typeof(numbers) = 'object'", name="numbers"),
    comment="What the periodic check found, one row a minute at most",
)

"""Passwords: how the server keeps them, and how old and strong the application's is."""

from datetime import UTC, datetime, timedelta

from ops.audit.finding import Finding, Look, Subject, Verdict
from shared.db import aws
from shared.db.session import identifier
from shared.errors import ConfigurationError

_OLD = timedelta(days=90)
_SOON = timedelta(days=14)
_SHORT = 32  # characters: the guide's
_KNOWN = {"chatmaps_dev_password", "postgres", "password", "chatmaps", "secret", "admin"}


def _encryption(name: str, subject: Subject) -> Finding:
    value = subject.setting("password_encryption")
    if value == "scram-sha-256":
        return Finding(name, "ok", value)
    sql = ("ALTER SYSTEM SET password_encryption = 'scram-sha-256';", "SELECT pg_reload_conf();")
    return Finding(name, "fail", f"{value}: new passwords are kept as hashes that are quickly guessed", sql)


def _kept(name: str, subject: Subject) -> Finding:
    rows = subject.connection.fetch(
        "SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'md5%' AND rolcanlogin ORDER BY rolname"
    )
    if not rows:
        return Finding(name, "ok", "Every password is kept as a SCRAM verifier")
    names = [row["rolname"] for row in rows]
    sql = tuple(f"ALTER ROLE {identifier(one)} PASSWORD '...'; -- db secret --verifier makes one" for one in names)
    return Finding(name, "fail", f"Kept as MD5: {', '.join(names)}", sql, ("Of the application: db rotate",))


def _strength(name: str, subject: Subject) -> Finding:
    password = subject.url.password
    if subject.settings.database_iam_auth:
        return Finding(name, "ok", "IAM tokens of 15 minutes")
    if password is None:
        return Finding(name, "unseen", "DATABASE_URL holds no password")
    if password in _KNOWN or password == subject.url.user:
        verdict: Verdict = "fail" if subject.is_exposed else "warn"
        return Finding(name, verdict, "One that everybody knows", advice=("db rotate",))
    if len(password) < _SHORT:
        return Finding(
            name, "warn", f"Shorter than {_SHORT} characters", advice=("db rotate makes one, and so does db secret",)
        )
    return Finding(name, "ok", f"At least {_SHORT} characters")


def _age(name: str, subject: Subject) -> Finding:
    row = subject.connection.fetch(
        "SELECT rolvaliduntil AS until, rolvaliduntil < now() AS is_over, rolvaliduntil < now() + %(soon)s AS is_near"
        " FROM pg_roles WHERE rolname = %(role)s AND isfinite(rolvaliduntil)",
        {"role": subject.role, "soon": _SOON},
    )
    if row and (row[0]["is_over"] or row[0]["is_near"]):
        until = row[0]["until"].date()
        sql = f"ALTER ROLE {identifier(subject.role)} VALID UNTIL '{datetime.now(UTC).date() + _OLD}';"
        verdict: Verdict = "fail" if row[0]["is_over"] else "warn"
        return Finding(name, verdict, f"VALID UNTIL {until}", (sql,), ("Before it: db rotate",))
    bounded = f"; VALID UNTIL {row[0]['until'].date()}" if row else ""
    changed = _changed(subject)
    if changed is None:
        return Finding(
            name, "unseen", f"Its age: PostgreSQL does not keep it, a secret of AWS does{bounded}",
            advice=("db rotate every 90 days, and when somebody leaves",),
        )  # fmt: skip
    days = (datetime.now(UTC) - changed).days
    if days > _OLD.days:
        return Finding(name, "warn", f"{days} days old{bounded}", advice=("db rotate",))
    return Finding(name, "ok", f"{days} days old{bounded}")


def _changed(subject: Subject) -> datetime | None:
    """Ask AWS since when the secret holds what is in force."""
    store = subject.settings.password_store.store if subject.settings.password_store else None
    if not isinstance(store, aws.SecretsManager):
        return None
    try:
        with (
            aws.explained("secretsmanager:GetSecretValue", store.secret),
            aws.client("secretsmanager", store.secret) as client,
        ):
            created: datetime = client.get_secret_value(SecretId=store.secret, VersionStage="AWSCURRENT")["CreatedDate"]
    except ConfigurationError:
        return None
    return created


LOOKS: tuple[tuple[str, Look], ...] = (
    ("Password encryption", _encryption),
    ("Kept passwords", _kept),
    ("Password strength", _strength),
    ("Password age", _age),
)

"""What the server writes down, and what bounds a role that runs wild."""

from ops.audit.finding import Finding, Look, Subject
from shared.db.session import identifier, role_settings
from shared.db.session import limits as session_limits
from shared.db.sizes import pool_size

_SHARE = 0.7  # of max_connections: the rest is for migrations, other programs and people


def _logging(name: str, subject: Subject) -> Finding:
    seen = {one: subject.setting(one) for one in ("log_connections", "log_disconnections", "log_statement")}
    wanted = {
        # PostgreSQL 18 writes stages in the place of on and off.
        "log_connections": "on" if seen["log_connections"] in ("off", "") else None,
        "log_disconnections": "on" if seen["log_disconnections"] == "off" else None,
        "log_statement": "ddl" if seen["log_statement"] == "none" else None,
    }
    said = ", ".join(f"{setting} = {value or 'none'}" for setting, value in seen.items())
    sql = [f"ALTER SYSTEM SET {setting} = '{value}';" for setting, value in wanted.items() if value]
    if seen["log_statement"] in ("mod", "all"):
        said += ": it writes people's data into the log"
        sql.append("ALTER SYSTEM SET log_statement = 'ddl';")
    if sql:
        advice = "At a provider: the same names in its console, or its own audit log."
        return Finding(name, "warn", said, (*sql, "SELECT pg_reload_conf();"), (advice,))
    return Finding(name, "ok", said)


def _connections(name: str, subject: Subject) -> Finding:
    row = subject.connection.fetch(
        "SELECT rolconnlimit AS room, current_setting('max_connections')::int AS most FROM pg_roles"
        " WHERE rolname = %(role)s",
        {"role": subject.role},
    )[0]
    if row["room"] >= 0:
        return Finding(name, "ok", f"{subject.role} may have {row['room']} of {row['most']} connections")
    sql = f"ALTER ROLE {identifier(subject.role)} CONNECTION LIMIT {int(row['most'] * _SHARE)};"
    return Finding(name, "warn", f"{subject.role} may take all {row['most']} connections", (sql,))


def _timeouts(name: str, subject: Subject) -> Finding:
    wanted = session_limits(
        request_timeout=subject.settings.request_timeout, idle_timeout=pool_size(subject.settings).idle_timeout
    )
    missing = [sql for sql in role_settings(wanted, subject.role) if _is_unbounded(subject, sql)]
    if missing:
        said = f"Without one by default: {', '.join(sql.split(' SET ')[1].split(' =')[0] for sql in missing)}"
        ours = "Our own direct connections send them; other programs, and a transaction pooler's, do not."
        return Finding(name, "warn", said, tuple(missing), (ours,))
    return Finding(name, "ok", "Statements, locks and idle transactions end by themselves")


def _is_unbounded(subject: Subject, sql: str) -> bool:
    return subject.setting(sql.split(" SET ")[1].split(" =")[0]) in ("0", "0ms")


LOOKS: tuple[tuple[str, Look], ...] = (
    ("Logging", _logging),
    ("Connection limit", _connections),
    ("Timeouts", _timeouts),
)

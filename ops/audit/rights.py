"""Rights: what the application's role is, and what everybody may."""

from ops.audit.finding import Finding, Look, Subject, Verdict
from shared.db.session import identifier

_ATTRIBUTES = {
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
_SPLIT = "db roles prints how to give the application a role of its own."


def _role(name: str, subject: Subject) -> Finding:
    role = identifier(subject.role)
    row = subject.connection.fetch("SELECT * FROM pg_roles WHERE rolname = %(role)s", {"role": subject.role})[0]
    if row["rolsuper"]:
        verdict: Verdict = "fail" if subject.is_exposed or subject.settings.is_production_like else "warn"
        sql = f"ALTER ROLE {role} NOSUPERUSER; -- while another superuser is left"
        return Finding(name, verdict, f"{subject.role} is a superuser", (sql,), (_SPLIT,))
    held = [word for column, word in _ATTRIBUTES.items() if row[column]]
    if held:
        sql = f"ALTER ROLE {role} {' '.join('NO' + word for word in held)};"
        return Finding(name, "warn", f"{subject.role} has {', '.join(held)}", (sql,), (_SPLIT,))
    return Finding(name, "ok", f"{subject.role} is no superuser, and makes no roles or databases")


def _owner(name: str, subject: Subject) -> Finding:
    row = subject.connection.fetch(
        "SELECT count(*)::int AS number FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = "
        "current_schema()::regnamespace AND relowner = (SELECT oid FROM pg_roles WHERE rolname = %(role)s)",
        {"role": subject.role},
    )[0]
    if row["number"]:
        said = f"{subject.role} owns {row['number']} tables: who gets hold of it may drop them"
        return Finding(name, "warn", said, advice=(_SPLIT,))
    return Finding(name, "ok", f"{subject.role} owns no table")


def _public_schema(name: str, subject: Subject) -> Finding:
    rows = subject.connection.fetch(
        "SELECT nspname AS schema FROM pg_namespace, aclexplode(nspacl) AS acl"
        " WHERE acl.grantee = 0 AND acl.privilege_type = 'CREATE' AND nspname !~ '^pg_' ORDER BY 1"
    )
    if rows:
        names = [row["schema"] for row in rows]
        sql = tuple(f"REVOKE CREATE ON SCHEMA {identifier(one)} FROM PUBLIC;" for one in names)
        return Finding(name, "fail", f"Every role may create objects in {', '.join(names)}", sql)
    return Finding(name, "ok", "Nobody may create objects without a grant")


def _public_database(name: str, subject: Subject) -> Finding:
    rows = subject.connection.fetch(
        "SELECT datname AS database, acl.privilege_type AS privilege"
        " FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS acl"
        " WHERE datname = current_database() AND acl.grantee = 0 ORDER BY 2"
    )
    if not rows:
        return Finding(name, "ok", "Only roles that were granted it may connect")
    database, rights = identifier(rows[0]["database"]), ", ".join(row["privilege"] for row in rows)
    sql = (
        f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {identifier(subject.role)};",
        f"REVOKE {rights} ON DATABASE {database} FROM PUBLIC;",
    )
    return Finding(name, "warn", f"Every role of the server has {rights}", sql)


def _public_tables(name: str, subject: Subject) -> Finding:
    rows = subject.connection.fetch(
        "SELECT DISTINCT c.oid::regclass::text AS name FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = relnamespace, aclexplode(relacl) AS acl"
        " WHERE acl.grantee = 0 AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
        " AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') ORDER BY 1"
    )
    if not rows:
        return Finding(name, "ok", "No table is open to every role")
    names = [row["name"] for row in rows]
    sql = tuple(f"REVOKE ALL ON {one} FROM PUBLIC;" for one in names)
    return Finding(name, "fail", f"Open to every role: {', '.join(names)}", sql)


LOOKS: tuple[tuple[str, Look], ...] = (
    ("Role", _role),
    ("Ownership", _owner),
    ("PUBLIC: schemas", _public_schema),
    ("PUBLIC: database", _public_database),
    ("PUBLIC: tables", _public_tables),
)

"""What a session shows, once it is there: the server, its distance, who stands between, and what we may do.

Each look is one function and one step. What the server refuses becomes a step too, never an error: the next look may
still work.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import median

from ops.doctor.step import Step, Verdict
from shared import deadline
from shared.db.connector import Connector
from shared.db.diagnosis import diagnose
from shared.db.drivers import Connection
from shared.db.providers import FORBIDS, Provider, provider_of, role_of
from shared.db.session import SessionLimits, identifier, role_settings
from shared.db.url import DatabaseURL
from shared.errors import DeadlineExceeded, Error
from shared.settings import Settings

MINIMUM_MAJOR_VERSION = 16
PINGS = 5
FAR = 10.0  # milliseconds of a round trip: within a region it is one or two
HELD = 600.0  # seconds that a connection lies idle before it counts as forgotten
HELD_OPEN = 60.0  # the same within a transaction
SKEW = 2.0  # seconds; signed requests and tokens are refused from minutes on, reports mislead earlier


@dataclass(frozen=True)
class Session:
    """An open connection, and what is known about where it leads."""

    connection: Connection
    connector: Connector  # opens a second one as the first was opened
    settings: Settings
    url: DatabaseURL
    limits: SessionLimits

    @property
    def provider(self) -> Provider:
        """Give what the address suggests."""
        return provider_of(self.url)


Look = Callable[[str, Session], Step]


def steps(session: Session, looks: Sequence[tuple[str, Look]], timeout: float) -> Iterator[Step]:
    """Give a step for each look; one that loses the connection is the last, and failed."""
    for name, look in looks:
        try:
            with deadline.within(timeout):
                step = look(name, session)
        except Error as error:
            found = diagnose(error, session.url)
            verdict: Verdict = "fail" if session.connection.closed else "warn"
            step = Step(name, verdict, found.cause, found.solutions, found.code)
        yield step
        if session.connection.closed:
            return


def is_pooled(connection: Connection) -> bool:
    """Tell whether somebody else answered the connection than runs its statements."""
    return bool(connection.fetch("SELECT pg_backend_pid() AS pid")[0]["pid"] != connection.backend_pid)


def _server(name: str, session: Session) -> Step:
    row = session.connection.fetch(
        "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,"
        " pg_is_in_recovery() AS standby, current_setting('transaction_read_only')::boolean AS read_only"
    )[0]
    said = f"PostgreSQL {row['version']}, {'a standby' if row['standby'] else 'the primary'}"
    if row["number"] < MINIMUM_MAJOR_VERSION * 10000:
        return Step(name, "fail", said, (f"Upgrade the server: this project needs {MINIMUM_MAJOR_VERSION} or newer.",))
    if row["standby"]:
        return Step(name, "warn", said, ("It cannot be written to: point DATABASE_URL at the primary.",))
    if row["read_only"]:
        advice = "default_transaction_read_only is on; some providers switch it on when the disk is full."
        return Step(name, "warn", f"{said}, read-only", (advice,))
    return Step(name, "ok", said)


def _latency(name: str, session: Session) -> Step:
    times = []
    for _ in range(PINGS):
        start = time.perf_counter()
        session.connection.fetch("SELECT 1")
        times.append((time.perf_counter() - start) * 1000)
    trip = median(times)
    said = f"{trip:.1f} ms a round trip; a read by key is one, a transaction of n statements n + 1"
    if trip > FAR:
        near = "Put functions and database into the same region; from your own machine this is how far away it is."
        return Step(name, "warn", said, (near,))
    return Step(name, "ok", said)


def _pooler(name: str, session: Session) -> Step:
    seen = is_pooled(session.connection) or session.connector.pooler not in ("none", session.provider.pooler)
    expected = session.provider.pooler != "none"
    if seen and not expected:
        return Step(
            name, "warn", "A pooler answers, and the address does not tell so.",
            ("Add pgbouncer=true to the URL, and set DIRECT_URL for migrations.",),
        )  # fmt: skip
    if expected and not seen:
        # A proxy may hand the server's own process number on, so behaviour alone does not acquit it.
        return Step(name, "ok", f"{session.provider.name}: taken for a pooler by its address")
    return Step(name, "ok", f"{session.provider.name}: {'a pooler answers' if seen else 'the server itself answers'}")


def _session_state(name: str, session: Session) -> Step:
    """See whether a setting and a prepared statement last while another client takes a server connection."""
    if session.provider.pooler == "rds_proxy":
        return Step(name, "skip", "Not tried: at an RDS Proxy it would pin the connection.")
    mark = secrets.token_hex(4)
    connection = session.connection
    connection.execute(f"PREPARE doctor_{mark} AS SELECT 1")
    connection.fetch("SELECT set_config('doctor.mark', %(mark)s, false)", {"mark": mark})
    with closing(session.connector.open()) as other:
        other.begin("BEGIN")
        other.fetch("SELECT 1")  # takes the server connection that a pooler would have given to us
        try:
            row = connection.fetch(
                "SELECT current_setting('doctor.mark', true) AS mark,"
                " EXISTS (SELECT FROM pg_prepared_statements WHERE name = %(name)s) AS prepared",
                {"name": f"doctor_{mark}"},
            )[0]
        except DeadlineExceeded:
            return Step(name, "skip", "Not told: the pooler has one server connection, and it was in use.")
        finally:
            other.end("ROLLBACK")
    kept = row["mark"] == mark and row["prepared"]
    if kept:
        connection.fetch("SELECT set_config('doctor.mark', '', false)")
        connection.execute(f"DEALLOCATE doctor_{mark}")
        return Step(name, "ok", "SET and prepared statements last as long as the connection")
    return Step(name, "ok", f"Lost between statements, as expected here; we use none. It forbids {_forbidden(session)}")


def _forbidden(session: Session) -> str:
    return FORBIDS["transaction" if session.provider.pooler == "none" else session.provider.pooler]


def _limits(name: str, session: Session) -> Step:
    rows = session.connection.fetch(
        "SELECT name, current_setting(name) AS value FROM unnest(%(names)s::text[]) AS name",
        {"names": list(SessionLimits._fields)},
    )
    said = ", ".join(f"{row['name']} = {row['value']}" for row in rows)
    missing = {row["name"] for row in rows if row["value"] in ("0", "0ms")}
    sent = session.connector.pooler == "none"
    wanted = [sql for sql in role_settings(session.limits, role_of(session.url)) if any(one in sql for one in missing)]
    if wanted and not sent:
        return Step(name, "warn", said, ("The pooler takes no limits. Run once, as an administrator:", *wanted))
    return Step(name, "ok", said)


def _rights(name: str, session: Session) -> Step:
    row = session.connection.fetch(
        "SELECT current_user AS role, rolsuper AS super, rolconnlimit AS room, current_schema() AS schema,"
        " has_schema_privilege(current_schema(), 'CREATE') AS may_create,"
        " pg_has_role('pg_read_all_stats', 'USAGE') AS may_read_statistics"
        " FROM pg_roles WHERE rolname = current_user"
    )[0]
    role = row["role"]
    said, solutions = [f"{role} in the schema {row['schema']}"], []
    if row["schema"] is None:
        advice = "Create a schema of search_path: SHOW search_path tells which."
        return Step(name, "fail", f"{role}; no schema of its search_path exists", (advice,))
    if not row["may_create"]:
        said.append("may not create tables, so cannot migrate")
        grant = f"GRANT CREATE ON SCHEMA {identifier(row['schema'])} TO {identifier(role)};"
        solutions.append(f"For migrations, as the schema's owner: {grant}")
    if row["super"] and session.settings.is_production_like and not session.url.is_local:
        said.append("a superuser")
        solutions.append("Let the application log in as a role that owns no more than its tables.")
    if row["room"] >= 0:
        said.append(f"at most {row['room']} connections")
    if not row["may_read_statistics"]:
        said.append("sees its own sessions only")
    return Step(name, "warn" if solutions else "ok", ", ".join(said), tuple(solutions))


def _clock(name: str, session: Session) -> Step:
    before = time.time()
    there = session.connection.fetch("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")[0]["now"]
    after = time.time()
    skew = there - (before + after) / 2
    if abs(skew) - (after - before) / 2 > SKEW:
        way = "ahead" if skew > 0 else "behind"
        advice = "Set this machine's clock (NTP): IAM tokens, sessions and logs go by it."
        return Step(name, "warn", f"The server's clock is {abs(skew):.1f} s {way} of this machine's.", (advice,))
    return Step(name, "ok", "The server's clock and this machine's agree")


def _leaks(name: str, session: Session) -> Step:
    """Look for connections that somebody took and did not give back."""
    rows = session.connection.fetch(
        "SELECT application_name AS who, state, count(*)::int AS number,"
        " max(extract(epoch FROM now() - state_change))::int AS age FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND now() - state_change > CASE WHEN state = 'idle' THEN %(idle)s WHEN starts_with(state, 'idle in')"
        " THEN %(open)s END * interval '1 second' GROUP BY 1, 2 ORDER BY number DESC, who LIMIT 5",
        {"idle": HELD, "open": HELD_OPEN},
    )
    if not rows:
        return Step(name, "ok", "Nobody holds a connection that is not used")
    said = "; ".join(f"{row['number']} of {row['who'] or '?'} {row['state']} for up to {row['age']} s" for row in rows)
    solutions = (
        "Give connections back: use shared.db's functions, or close what you open in a finally.",
        "As a stopgap let the server end them: ALTER ROLE ... SET idle_in_transaction_session_timeout = '60s';",
    )
    return Step(name, "warn", said, solutions)


LOOKS: tuple[tuple[str, Look], ...] = (
    ("Server", _server),
    ("Latency", _latency),
    ("Pooler", _pooler),
    ("Session state", _session_state),
    ("Limits in force", _limits),
    ("Rights", _rights),
    ("Clock", _clock),
    ("Leaks", _leaks),
)

"""Reads from a real standby: where they go, what they see, and what happens when it is away, behind or in conflict."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import NamedTuple

import psycopg
import pytest

from shared import db
from shared.db import replica
from shared.db.diagnosis import explain
from shared.db.testing import rolled_back
from shared.deadline import within
from shared.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, Error, SerializationFailure
from shared.health.report import make_report
from shared.log import masked
from tests.servers import binaries
from tests.servers import postgres as servers
from tests.servers.postgres import Postgres
from tests.servers.process import free_port
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.watching import sessions, terminate, until

PORT = "SELECT current_setting('port')::int AS port"
COUNT = "SELECT count(*)::int AS count FROM notes"
NAME = "app"
KEY = 7  # of the advisory lock that a read waits for, while it holds its lock on the table
WAIT_AND_COUNT = "SELECT count(*)::int AS count FROM notes, pg_advisory_xact_lock_shared(7)"


class Pair(NamedTuple):
    """A primary, and a hot standby that follows it."""

    primary: Postgres
    standby: Postgres

    @property
    def url(self) -> str:
        """Give the primary's URL."""
        return self.primary.url(NAME)

    def replica_url(self, *ports: int, attrs: str = "prefer-standby", more: str = "") -> str:
        """Give a URL of several hosts: the standby and then the primary, or those on these ports."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports or (self.standby.port, self.primary.port))
        return f"{self.url.replace(f'127.0.0.1:{self.primary.port}', hosts)}?target_session_attrs={attrs}{more}"

    def follow(self) -> None:
        """Wait until the standby has replayed all that the primary has done."""
        done = self.primary.admin().execute("SELECT pg_current_wal_lsn()").fetchone()
        replayed = "SELECT pg_last_wal_replay_lsn() >= %s"
        until(lambda: self.standby.admin().execute(replayed, done).fetchone() == (True,))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the standby from replaying what it receives."""
        admin = self.standby.admin()
        admin.execute("SELECT pg_wal_replay_pause()")
        until(lambda: admin.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        try:
            yield
        finally:
            admin.execute("SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="module")
def pair(clean_session: None, run_directory: Path) -> Iterator[Pair]:
    """Return a primary and its standby, which ends whatever keeps it from replaying."""
    with ExitStack() as stack:
        settings = {"synchronous_commit": "on"}  # so that what is committed is on its way
        directory = run_directory / "replica"
        primary = stack.enter_context(servers.running(binaries.MAJORS[-1], directory / "primary", settings))
        primary.create_database(NAME)
        standby = stack.enter_context(servers.standby(primary, directory / "standby"))
        standby.admin().execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        standby.reload()
        yield Pair(primary, standby)


@pytest.fixture
def both(pair: Pair, use: Use, driver: str) -> Iterator[Pair]:
    """Point `shared.db` to the primary, `replica` to the standby or else the primary, with an empty table of notes."""
    use(pair.url, DATABASE_REPLICA_URL=pair.replica_url())
    db.execute("DROP TABLE IF EXISTS notes")
    db.execute("CREATE TABLE notes (id int PRIMARY KEY)")
    pair.follow()
    yield pair
    db.close_db(grace=0)
    until(lambda: connections(pair) == (0, 0))


def connections(pair: Pair) -> tuple[int, int]:
    """Count the connections to the primary and to the standby."""
    return len(sessions(pair.primary, NAME)), len(sessions(pair.standby, NAME))


def lent() -> int:
    """Count how often a connection to the replica was lent."""
    return replica._replica.pool().statistics()["lent"]


# -- where reads go ---------------------------------------------------------------------------------


def test_reads_go_to_the_standby_and_writes_to_the_primary(both: Pair) -> None:
    assert replica.fetch_value(PORT) == both.standby.port
    assert db.fetch_value(PORT) == both.primary.port
    db.execute("INSERT INTO notes VALUES (1), (2)")
    both.follow()
    assert replica.fetch_one("SELECT id FROM notes WHERE id = %(id)s", {"id": 2}) == {"id": 2}
    assert replica.fetch_one("SELECT id FROM notes WHERE id = 3") is None
    assert replica.fetch_all("SELECT id FROM notes ORDER BY id") == [{"id": 1}, {"id": 2}]
    assert list(replica.stream("SELECT id FROM notes ORDER BY id", batch=1)) == [{"id": 1}, {"id": 2}]
    assert connections(both) == (1, 1)


@pytest.mark.parametrize("attrs", ["any", "prefer-standby", "standby", "read-only"])
@pytest.mark.parametrize("order", ["standby first", "primary first"])
def test_what_target_session_attrs_means(both: Pair, use: Use, attrs: str, order: str) -> None:
    ports = [both.primary.port, both.standby.port]
    if order == "standby first":
        ports.reverse()
    use(both.url, DATABASE_REPLICA_URL=both.replica_url(*ports, attrs=attrs))
    # Every session here is read-only, so `read-only` takes any server, as `any` does.
    first = attrs in ("any", "read-only") and order == "primary first"
    assert replica.fetch_value(PORT) == (both.primary if first else both.standby).port


def test_without_a_replica_reads_go_to_the_primary_by_the_same_pool(pair: Pair, use: Use, driver: str) -> None:
    use(pair.url)
    assert replica.fetch_value("SELECT pg_backend_pid()") == db.fetch_value("SELECT pg_backend_pid()")
    assert next(replica.stream(PORT)) == {"port": pair.primary.port}
    assert not replica._replica.has_pool


def test_a_test_that_rolls_back_reads_what_it_wrote(both: Pair) -> None:
    assert replica.fetch_value(COUNT) == 0  # its pool is open
    with rolled_back():
        db.execute("INSERT INTO notes VALUES (1)")
        assert replica.fetch_value(COUNT) == 1
        assert list(replica.stream("SELECT id FROM notes")) == [{"id": 1}]
    assert replica.fetch_value(PORT) == both.standby.port


def test_it_has_limits_of_its_own_and_the_same_rules(both: Pair, use: Use) -> None:
    use(both.url, DATABASE_REPLICA_URL=both.replica_url(more="&connection_limit=2"), REQUEST_TIMEOUT="7")
    assert replica.fetch_value("SHOW default_transaction_read_only") == "on"
    assert replica.fetch_value("SHOW statement_timeout") == "9s"
    assert replica._replica.pool().max_size == 2
    assert db.get_pool().max_size == 5
    with within(0.1), pytest.raises(Error) as caught:
        replica.fetch_value("SELECT pg_sleep(5)")
    assert (caught.value.code, caught.value.of_replica) == ("deadline_exceeded", True)


def test_close_and_drain_close_both(both: Pair) -> None:
    for close in (db.close_db, db.drain):
        assert replica.fetch_value("SELECT 1") == db.fetch_value("SELECT 1")
        assert connections(both) == (1, 1)
        close()
        until(lambda: connections(both) == (0, 0))


def test_importing_the_face_does_not_import_it() -> None:
    program = "import sys; from shared import db; sys.exit('shared.db.replica' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- what it refuses --------------------------------------------------------------------------------


def test_a_write_is_refused_wherever_it_lands(both: Pair, use: Use) -> None:
    def write() -> DatabaseError:
        with pytest.raises(DatabaseError) as caught:
            replica.fetch_all("INSERT INTO notes VALUES (1) RETURNING id")
        return caught.value

    assert write().sqlstate == "25006"
    use(both.url, DATABASE_REPLICA_URL=f"{both.url}?application_name=replica")  # as it falls back
    error = write()
    assert (error.sqlstate, error.of_replica) == ("25006", True)
    assert replica._replica.pool().statistics()["lent"] == 1  # and is not tried again
    found = explain(error)
    assert found.code == "read_only_sql_transaction"
    assert "shared.db.replica only reads: what writes belongs to shared.db." in found.solutions
    assert db.fetch_value(COUNT) == 0


def test_a_replica_that_must_write_is_refused(both: Pair, use: Use) -> None:
    use(both.url, DATABASE_REPLICA_URL=both.replica_url(attrs="read-write"))
    with pytest.raises(ConfigurationError, match="asks for a server that takes writes") as caught:
        replica.fetch_value("SELECT 1")
    assert "prefer-standby" in caught.value.solutions[0]


def test_errors_name_the_replica_and_no_password_is_shown(both: Pair, use: Use) -> None:
    use(both.url, DATABASE_REPLICA_URL=f"postgresql://reader:replica-secret@127.0.0.2:{free_port()}/app")
    with pytest.raises(DatabaseUnavailable) as caught:
        replica.fetch_value("SELECT 1")
    assert "127.0.0.2" in explain(caught.value).cause
    assert masked("it is replica-secret") == "it is ********"
    use(both.url, DATABASE_REPLICA_URL="nonsense")
    assert masked(f"it is {db.get_connector().url.password}") == "it is ********"


# -- behind -----------------------------------------------------------------------------------------


def test_a_replica_that_is_behind_gives_what_was(both: Pair, use: Use) -> None:
    with both.paused():
        db.execute("INSERT INTO notes VALUES (1)")
        assert (db.fetch_value(COUNT), replica.fetch_value(COUNT)) == (1, 0)
        use(both.standby.url(NAME))
        lag = make_report()["replication_lag"]
    assert lag.verdict == "warn"
    assert lag.sql == ("SELECT pg_wal_replay_resume();",)
    use(both.url, DATABASE_REPLICA_URL=both.replica_url())
    both.follow()
    assert replica.fetch_value(COUNT) == 1


@pytest.mark.parametrize("conflicts", [1, 3])
def test_a_read_that_replay_does_not_wait_for_is_run_again(both: Pair, conflicts: int) -> None:
    db.execute("INSERT INTO notes VALUES (1)")
    both.follow()
    with psycopg.connect(both.standby.admin_url(NAME), autocommit=True) as holder, ThreadPoolExecutor() as executor:
        holder.execute("SELECT pg_advisory_lock(%s)", [KEY])
        reading = executor.submit(replica.fetch_value, WAIT_AND_COUNT)
        for attempt in range(1, conflicts + 1):
            until(lambda attempt=attempt: waits(both) and lent() == attempt)  # type: ignore[misc]
            lock_table()
            until(lambda attempt=attempt: reading.done() or lent() > attempt)  # type: ignore[misc]
        holder.execute("SELECT pg_advisory_unlock(%s)", [KEY])
        if conflicts == 1:
            assert reading.result() == 1
            return
        with pytest.raises(SerializationFailure) as caught:
            reading.result()
    assert lent() == conflicts
    assert explain(caught.value).code == "recovery_conflict"


def waits(pair: Pair) -> bool:
    """Tell whether a read on the standby waits for the advisory lock."""
    return any(session.wait_event == "advisory" for session in sessions(pair.standby, NAME))


def lock_table() -> None:
    """Have the primary take the lock that the standby must replay, and no read can stand."""
    with db.transaction() as tx:
        tx.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")


def test_a_stream_that_replay_does_not_wait_for_ends(both: Pair) -> None:
    db.execute("INSERT INTO notes VALUES (1), (2)")
    both.follow()
    rows = replica.stream("SELECT id FROM notes ORDER BY id", batch=1)
    assert next(rows) == {"id": 1}
    lock_table()
    until(lambda: connections(both) == (1, 0))
    with pytest.raises(Error) as caught:
        next(rows)
    assert caught.value.of_replica
    assert replica.fetch_value(COUNT) == 2


# -- away and back ----------------------------------------------------------------------------------


def test_reads_fall_back_to_the_primary_and_return(both: Pair) -> None:
    db.close_db()
    with reads() as (seen, errors):
        until(lambda: both.standby.port in seen)
        both.standby.server.stop("fast")
        until(lambda: both.primary.port in seen)
        both.standby.server.start()
        seen.clear()
        # New connections go to the standby; those that there are stay where they are until their time is over.
        terminate(both.primary, *(session.pid for session in sessions(both.primary, NAME)))
        until(lambda: both.standby.port in seen)
        until(lambda: connections(both)[0] == 0)
    assert errors == []


@contextmanager
def reads() -> Iterator[tuple[set[int], list[Error]]]:
    """Let two threads read the whole time; give the ports of the servers that answered, and the errors."""
    seen: set[int] = set()
    errors: list[Error] = []
    over = Event()

    def read() -> None:
        while not over.wait(0.005):
            try:
                with within(5):
                    seen.add(replica.fetch_value(PORT))
            except Error as error:
                errors.append(error)

    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(read) for _ in range(2)]
        try:
            yield seen, errors
        finally:
            over.set()
        for future in futures:
            future.result()


@pytest.mark.parametrize("order", ["standby first", "primary first"])
def test_a_silent_replica_leaves_time_for_the_primary(both: Pair, use: Use, order: str) -> None:
    with WireProxy("127.0.0.1", both.standby.port) as proxy:
        proxy.silence()
        ports = [both.primary.port, proxy.port]
        if order == "standby first":
            ports.reverse()
        use(both.url, DATABASE_REPLICA_URL=both.replica_url(*ports))
        with within(2):
            assert replica.fetch_value(PORT) == both.primary.port
        db.close_db()


def test_a_standby_that_is_promoted_goes_on(own_postgres: Postgres, standby: Postgres, use: Use) -> None:
    pair = Pair(own_postgres, standby)
    own_postgres.create_database(NAME)
    pair.follow()
    use(pair.url, DATABASE_REPLICA_URL=pair.replica_url())
    assert replica.fetch_value(PORT) == standby.port
    own_postgres.server.stop("immediate")
    assert standby.admin().execute("SELECT pg_promote()").fetchone() == (True,)
    assert replica.fetch_value(PORT) == standby.port
    with pytest.raises(DatabaseError) as caught:
        replica.fetch_all("CREATE TABLE t ()")
    assert caught.value.sqlstate == "25006"
    db.close_db()

"""What runs again, how often, and what never does: on real servers, cut on the wire where it matters."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from shared import db, deadline
from shared.db.retry import ACTIONS, action_for
from shared.errors import (
    DatabaseError,
    DatabaseUnavailable,
    DeadlineExceeded,
    DeadlockDetected,
    PoolTimeout,
    SerializationFailure,
    TransactionResolutionUnknown,
    UniqueViolation,
)
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.shared.db.conftest import Use
from tests.shared.db.watching import sessions, until

ADD = "INSERT INTO ledger VALUES (%(n)s)"


@pytest.fixture
def proxy(use: Use, driver: str, database: str, wire_proxy: WireProxy) -> WireProxy:
    """Have a table `ledger` without keys, so that a doubled write shows, reached through the wire proxy."""
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true")
    db.execute("CREATE TABLE ledger (n int)")
    return wire_proxy


def ledger() -> list[int]:
    return [row["n"] for row in db.fetch_all("SELECT n FROM ledger ORDER BY n")]


def test_a_connection_lost_before_commit_runs_the_unit_again(proxy: WireProxy) -> None:
    trap = proxy.on("client", b"INSERT INTO ledger", do="rst", when="answer")
    runs = 0

    def unit(tx: db.Transaction) -> str:
        nonlocal runs
        runs += 1
        tx.execute(ADD, {"n": runs})
        return "done"

    assert db.run_transaction(unit) == "done"
    assert trap.event.is_set()
    assert (runs, ledger()) == (2, [2])


@pytest.mark.parametrize(("when", "kept"), [("before", []), ("answer", [1])])
def test_a_connection_lost_during_commit_is_an_error_of_its_own(proxy: WireProxy, when: str, kept: list[int]) -> None:
    proxy.on("client", b"COMMIT", do="rst", when=when)  # type: ignore[arg-type]
    runs = 0

    @db.retry()
    def unit(tx: db.Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.execute(ADD, {"n": 1})

    with pytest.raises(TransactionResolutionUnknown) as caught:
        unit()
    assert caught.value.sqlstate == "08007"
    assert (runs, ledger()) == (1, kept)


def test_an_idempotent_unit_runs_again_even_then(proxy: WireProxy) -> None:
    db.execute("ALTER TABLE ledger ADD UNIQUE (n)")
    proxy.on("client", b"COMMIT", do="rst", when="answer")

    @db.retry(idempotent=True)
    def unit(tx: db.Transaction) -> int:
        return tx.execute("INSERT INTO ledger VALUES (%(n)s) ON CONFLICT DO NOTHING", {"n": 1})

    assert unit() == 0  # the first run was kept
    assert ledger() == [1]


def test_a_read_only_transaction_is_never_ambiguous(proxy: WireProxy) -> None:
    proxy.on("client", b"COMMIT", do="rst", when="answer")

    @db.retry(read_only=True)
    def unit(tx: db.Transaction) -> object:
        return tx.fetch_value("SELECT count(*) FROM ledger")

    assert unit() == 0


def test_a_connection_known_to_be_dead_before_commit_is_not_ambiguous(proxy: WireProxy) -> None:
    def unit() -> None:
        with db.transaction() as tx:
            tx.execute(ADD, {"n": 1})
            proxy.cut("fin")
            _await_readable(tx)

    with pytest.raises(DatabaseUnavailable):
        unit()
    assert ledger() == []


def test_a_session_that_ended_while_idle_ran_no_commit(
    proxy: WireProxy, use: Use, postgres: Postgres, database: str
) -> None:
    """A process that is frozen in a transaction sends a COMMIT that nobody reads; the server says why."""
    use(f"{proxy.url(database)}?options=-c%20idle_in_transaction_session_timeout%3D200")
    held = proxy.on("client", b"COMMIT", do="pause")
    runs = 0

    @db.retry()
    def unit(tx: db.Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.execute(ADD, {"n": runs})

    with ThreadPoolExecutor() as executor:
        done = executor.submit(unit)
        held.wait()
        until(lambda: not sessions(postgres, database))
        proxy.resume()
        done.result()
    assert (runs, ledger()) == (2, [2])


def test_a_statement_that_reaches_a_session_ended_while_idle_is_sent_again(
    proxy: WireProxy, use: Use, postgres: Postgres, database: str
) -> None:
    use(f"{proxy.url(database)}?options=-c%20idle_session_timeout%3D200")
    held = proxy.on("client", b"INSERT INTO ledger", do="pause")
    with ThreadPoolExecutor() as executor:
        done = executor.submit(db.execute, ADD, {"n": 1})
        held.wait()
        until(lambda: not sessions(postgres, database))
        proxy.resume()
        assert done.result() == 1
    assert ledger() == [1]


def _await_readable(tx: db.Transaction) -> None:
    """Wait until the end of the stream has arrived here; that is when the pool could know."""
    import select

    raw = tx._connection.raw
    descriptor = raw.fileno() if hasattr(raw, "fileno") else raw._usock.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(5000)


def test_a_single_statement_is_never_sent_twice(proxy: WireProxy) -> None:
    proxy.on("client", b"INSERT INTO ledger", do="rst", when="answer")
    with pytest.raises(DatabaseUnavailable):
        db.fetch_one("INSERT INTO ledger VALUES (%(n)s) RETURNING n", {"n": 1})
    # pg8000's messages are answered one by one, so the server may find the client gone before it commits.
    assert ledger() in ([1], [])


def test_a_serialization_failure_runs_the_unit_again(use: Use, driver: str, database: str) -> None:
    use(database)
    db.execute("CREATE TABLE account (id int PRIMARY KEY, cents int)")
    db.execute("INSERT INTO account VALUES (1, 0)")
    others = iter([True])

    @db.retry(isolation="repeatable read")
    def add(tx: db.Transaction) -> None:
        tx.fetch_value("SELECT cents FROM account")
        if next(others, False):  # somebody else writes in between, the first time only
            db.execute("UPDATE account SET cents = cents + 100")
        tx.execute("UPDATE account SET cents = cents + 1")

    add()
    assert db.fetch_value("SELECT cents FROM account") == 101


def test_a_deadlock_runs_the_loser_again(use: Use, driver: str, database: str) -> None:
    use(database)
    db.execute("CREATE TABLE account (id int PRIMARY KEY, cents int)")
    db.execute("INSERT INTO account VALUES (1, 0), (2, 0)")
    both_hold_one = threading.Barrier(2)
    runs: list[int] = []

    @db.retry()
    def move(tx: db.Transaction, first: int, second: int) -> None:
        runs.append(first)
        tx.execute("UPDATE account SET cents = cents + 1 WHERE id = %(id)s", {"id": first})
        if runs.count(first) == 1:
            both_hold_one.wait(timeout=10)
        tx.execute("UPDATE account SET cents = cents + 1 WHERE id = %(id)s", {"id": second})

    threads = [threading.Thread(target=move, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(runs) == 3
    assert db.fetch_value("SELECT sum(cents)::int FROM account") == 4


def test_what_would_fail_again_runs_once(use: Use, driver: str, database: str) -> None:
    use(database)
    db.execute("CREATE TABLE ledger (n int UNIQUE)")
    db.execute(ADD, {"n": 1})
    runs = 0

    @db.retry()
    def unit(tx: db.Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.execute(ADD, {"n": 1})

    with pytest.raises(UniqueViolation):
        unit()
    assert runs == 1


def test_it_gives_up_after_so_many_attempts(use: Use, driver: str, database: str) -> None:
    use(database)
    runs = 0

    @db.retry(attempts=3)
    def unit(tx: db.Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(SerializationFailure):
        unit()
    assert runs == 3


def test_it_waits_for_a_server_no_longer_than_the_deadline(use: Use, driver: str, wire_proxy: WireProxy) -> None:
    wire_proxy.refuse()
    use(wire_proxy.url("postgresql://app:app@127.0.0.1:1/none"))
    with pytest.raises((DatabaseUnavailable, DeadlineExceeded)), deadline.within(0.5):
        db.run_transaction(lambda tx: tx.execute("SELECT 1"))


def test_a_pause_that_takes_the_rest_of_the_time_hides_no_reason(
    use: Use, driver: str, wire_proxy: WireProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def oversleep(_earlier: int) -> bool:
        until(lambda: deadline.remaining() == 0)
        return True

    monkeypatch.setitem(db.run_transaction.__globals__, "pause", oversleep)
    wire_proxy.refuse()
    use(wire_proxy.url("postgresql://app:app@127.0.0.1:1/none"))
    with pytest.raises(DatabaseUnavailable), deadline.within(0.3):
        db.run_transaction(lambda tx: tx.execute("SELECT 1"))


def test_a_server_that_was_away_when_it_began_is_waited_for(proxy: WireProxy) -> None:
    db.close_db()
    proxy.refuse()
    timer = threading.Timer(1.0, proxy.accept)
    timer.start()
    db.run_transaction(lambda tx: tx.execute(ADD, {"n": 1}))
    timer.join()
    assert ledger() == [1]


def test_a_server_that_takes_no_writes_is_left(use: Use, driver: str, database: str) -> None:
    use(database)
    db.execute("CREATE TABLE ledger (n int)")
    with psycopg.connect(database, autocommit=True) as owner:
        name = owner.info.dbname
        owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        db.close_db()  # the next connection gets it
        runs = 0

        @db.retry()
        def unit(tx: db.Transaction) -> None:
            nonlocal runs
            runs += 1
            if runs == 2:
                owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            tx.execute(ADD, {"n": runs})

        unit()
    assert ledger() == [3]  # the second connection was made before the change, the third after it


def test_busy_and_late_are_never_run_again() -> None:
    assert action_for(PoolTimeout("busy")) == "never"
    assert action_for(DeadlineExceeded("late")) == "never"
    assert action_for(DatabaseError("no", sqlstate="42601")) == "never"
    assert action_for(DatabaseUnavailable("gone")) == "reconnect"
    assert action_for(DeadlockDetected("dead", sqlstate="40P01")) == "again"


def test_the_docs_have_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "RETRY.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w{5})` \| .+ \| `(\w+)` \|$", page, re.MULTILINE))
    assert rows == ACTIONS

"""A ledger kept through faults: no committed write is lost, none is doubled, and no one is told a wrong outcome."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

import pytest

from shared import db, deadline
from shared.errors import Error, TransactionResolutionUnknown
from tests.servers.postgres import Postgres
from tests.servers.proxy import WireProxy
from tests.servers.proxy_link import When
from tests.shared.db.conftest import Use
from tests.shared.db.watching import until

CLIENTS = 8
Entry = tuple[int, int]  # client, number of its write


class Ledger:
    """What clients were told of each write, to be compared with what the database holds."""

    def __init__(self) -> None:
        self.kept: set[Entry] = set()
        self.refused: set[Entry] = set()
        self.unknown: set[Entry] = set()
        self.runs: Counter[Entry] = Counter()

    def write(self, client: int, number: int) -> None:
        """Enter a write, in a transaction that others will not let be: it takes two locks in either order."""
        entry = (client, number)

        @db.retry(isolation="serializable" if number % 3 == 0 else None)
        def unit(tx: db.Transaction) -> None:
            self.runs[entry] += 1
            tx.execute("INSERT INTO ledger VALUES (%(client)s, %(number)s)", {"client": client, "number": number})
            for account in (1, 2) if client % 2 else (2, 1):
                tx.execute("UPDATE account SET writes = writes + 1 WHERE id = %(id)s", {"id": account})

        try:
            with deadline.within(20):
                unit()
        except TransactionResolutionUnknown:
            self.unknown.add(entry)
        except Error:
            self.refused.add(entry)
        else:
            self.kept.add(entry)

    def check(self) -> None:
        """Compare with the database."""
        rows = db.fetch_all("SELECT client, number FROM ledger")
        found = Counter((row["client"], row["number"]) for row in rows)
        assert [entry for entry, times in found.items() if times > 1] == []
        assert self.kept - found.keys() == set()
        assert self.refused & found.keys() == set()
        accounts = db.fetch_all("SELECT writes FROM account")
        assert [row["writes"] for row in accounts] == [len(found)] * 2


def prepare(postgres: Postgres) -> None:
    # The clients deadlock all the time, and the default waits a second before it looks.
    name = db.fetch_value("SELECT quote_ident(current_database())")
    postgres.admin().execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    db.close_db()
    db.execute("CREATE TABLE ledger (client int NOT NULL, number int NOT NULL)")
    db.execute("CREATE TABLE account (id int PRIMARY KEY, writes int NOT NULL)")
    db.execute("INSERT INTO account VALUES (1, 0), (2, 0)")


@contextmanager
def clients(write: Callable[[int, int], None]) -> Iterator[threading.Event]:
    """Have CLIENTS threads write one after the other until the event is set."""
    over = threading.Event()

    def work(client: int) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            write(client, number)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield over
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=60)


def test_connections_cut_around_commit(
    use: Use, driver: str, postgres: Postgres, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database), DATABASE_DISABLE_SSL="true", DATABASE_POOL_MAX="8")
    prepare(postgres)
    ledger = Ledger()
    with clients(ledger.write):
        for _ in range(4):
            for when in get_args(When):
                wire_proxy.on("client", b"COMMIT", do="rst", when=when).wait()
                wire_proxy.on("client", b"UPDATE account", do="fin", when=when).wait()
    ledger.check()
    assert ledger.unknown
    assert max(ledger.runs.values()) > 1


def test_a_failover_in_between(use: Use, driver: str, own_postgres: Postgres, standby: Postgres) -> None:
    # Only what the standby has, too, is acknowledged: otherwise a failover may lose it, whoever the client is.
    for setting in ("synchronous_standby_names = '*'", "synchronous_commit = on"):
        own_postgres.admin().execute(f"ALTER SYSTEM SET {setting}")
    own_postgres.admin().execute("ALTER ROLE app SET synchronous_commit = on")
    own_postgres.admin().execute("GRANT CREATE ON SCHEMA public TO app")
    own_postgres.reload()
    url = own_postgres.url("postgres").replace("@127.0.0.1", f"@127.0.0.1:{standby.port},127.0.0.1")
    use(f"{url}?target_session_attrs=read-write", DATABASE_POOL_MAX="8")
    prepare(own_postgres)
    ledger = Ledger()
    with clients(ledger.write):
        until(lambda: len(ledger.kept) > 50)
        own_postgres.server.stop("immediate")
        standby.admin().execute("SELECT pg_promote()")
        standby.admin().execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        standby.admin().execute("SELECT pg_reload_conf()")
        promoted = len(ledger.kept)
        until(lambda: len(ledger.kept) > promoted + 50, timeout=30)
    ledger.check()
    db.close_db()


@pytest.mark.parametrize("driver", ["psycopg", pytest.param("pg8000", marks=pytest.mark.soak)], indirect=True)
def test_a_server_that_wakes_in_8_s(
    use: Use, driver: str, postgres: Postgres, database: str, wire_proxy: WireProxy
) -> None:
    use(wire_proxy.url(database))
    prepare(postgres)
    db.close_db()
    wire_proxy.refuse()
    alarm = threading.Timer(8.0, wire_proxy.accept)
    alarm.start()
    ledger = Ledger()
    ledger.write(0, 0)
    alarm.join()
    assert ledger.kept == {(0, 0)}
    ledger.check()

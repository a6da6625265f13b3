"""What poolers say in their own words: PgBouncer, the distribution's and a newer one."""

from contextlib import suppress

import psycopg

from tests.servers.process import free_port
from tests.shared.db.provoke import Attempt, Stage, provokes
from tests.shared.db.provoke_connecting import UNTOLD
from tests.shared.db.watching import until


@provokes("unsupported_startup_parameter")
def options_through_a_pooler(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.through(stage.pooler("patient"), options="-c statement_timeout=5000"))


@provokes("unsupported_startup_parameter")
def options_through_a_newer_pooler(stage: Stage, attempt: Attempt) -> None:
    pooler = stage.pooler("newer", flavour="1.24.1")
    attempt.connect(stage.through(pooler, options="-c statement_timeout=5000"))


@provokes("invalid_catalog_name")
def unknown_database_behind_a_pooler(stage: Stage, attempt: Attempt) -> None:
    attempt.connect(stage.through(stage.pooler("patient"), database=f"none {attempt.client.name}"))


@provokes("pooler_too_many_clients")
def too_many_clients(stage: Stage, attempt: Attempt) -> None:
    url = stage.through(stage.pooler("small", max_client_conn="1"))
    with suppress(Exception):
        attempt.connect(url)
    attempt.connect(url)


@provokes("pooler_no_free_connection", is_slow=True)
def exhausted(stage: Stage, attempt: Attempt) -> None:
    # Each client has a pooler database of its own here, as PgBouncer has a pool for each.
    pooler = stage.pooler("exhausted", default_pool_size="1", query_wait_timeout="1")
    name = f"busy_{attempt.client.name}"
    stage.plain.create_database(name)
    attempt.defer(lambda: stage.plain.admin().execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode()))
    url = stage.through(pooler, database=name)
    holder = psycopg.connect(**url.connect_kwargs())  # type: ignore[arg-type]
    attempt.defer(holder.close)
    holder.execute("SELECT 1")
    attempt.connect(url.with_params(connect_timeout="5")).run("SELECT 1")


@provokes("pooler_query_timeout", is_slow=True)
def slow_behind_a_pooler(stage: Stage, attempt: Attempt) -> None:
    pooler = stage.pooler("hasty", default_pool_size="20", query_timeout="1")
    attempt.connect(stage.through(pooler, connect_timeout="5")).run("SELECT pg_sleep(10)")


@provokes("pooler_idle_transaction_timeout", is_slow=True)
def idle_behind_a_pooler(stage: Stage, attempt: Attempt) -> None:
    pooler = stage.pooler("tidy", default_pool_size="20", idle_transaction_timeout="1")
    session = attempt.connect(stage.through(pooler, connect_timeout="5"))
    mark = f"SELECT 'open {attempt.client.name}'"
    session.run("BEGIN")
    session.run(mark)
    open_ones = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query = %s"
    with psycopg.connect(stage.plain.admin_url(), autocommit=True) as admin:
        until(lambda: admin.execute(open_ones, [mark]).fetchone() == (0,))
    session.run("SELECT 1")


@provokes("pooler_database_disabled")
def disabled(stage: Stage, attempt: Attempt) -> None:
    pooler = stage.pooler("patient")
    url = stage.through(pooler)
    attempt.connect(url).close()
    pooler.console("DISABLE postgres")
    attempt.defer(lambda: pooler.console("ENABLE postgres"))
    attempt.connect(url)


@provokes("pooler_without_server", vaguely=UNTOLD, is_slow=True)
def nothing_behind_the_pooler(stage: Stage, attempt: Attempt) -> None:
    pooler = stage.pooler("orphan", port=free_port())
    attempt.connect(stage.through(pooler))


@provokes("pooler_without_server", vaguely=UNTOLD, is_slow=True)
def paused(stage: Stage, attempt: Attempt) -> None:
    pooler = stage.pooler("paused")
    with suppress(psycopg.errors.ProtocolViolation):  # another client has paused it already
        pooler.console("PAUSE")
    attempt.connect(stage.through(pooler))

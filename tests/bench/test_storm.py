"""The bench of storms: its clients read what is there, and its figures are of all turns."""

import pytest

from tests import results
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres

pytest.importorskip("psycopg_pool", reason="only `make bench` and `make soak` install it")

from bench import reads, storm
from bench.storm_clients import CLIENTS, LONGEST, TOO_LONG
from bench.storm_instances import Answers, python_clients


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_reads_every_row(database: str, postgres: Postgres, client: str) -> None:
    reads.fill(database)
    seen = storm.watched(python_clients(client, 2, 2, 2), database, postgres)
    assert (len(seen.answers.seconds), seen.answers.errors) == (8, [])
    assert seen.answers.took > 0


def test_what_fails_is_an_answer_too(database: str, postgres: Postgres) -> None:
    missing = 'ProgrammingError: (psycopg.errors.UndefinedTable) relation "item" does not exist'
    seen = storm.watched(python_clients("queue-pool", 1, 2, 1), database, postgres)
    assert seen.answers.seconds == []
    assert [storm.reason(error) for error in seen.answers.errors] == [missing] * 2


def test_the_ways_through_a_pooler(database: str, postgres: Postgres, pgbouncer: PgBouncer) -> None:
    reads.fill(database)
    seen = storm.watched(python_clients("ours", 2, 2, 2), pgbouncer.url(database), postgres)
    assert (len(seen.answers.seconds), seen.answers.errors) == (8, [])


def test_a_report_puts_all_turns_together() -> None:
    fine = storm.Storm(Answers([0.1] * 10, [], 0.0, 1.0), [(0.0, 3), (0.05, 9), (0.31, 4)])
    full = "connection failed: port 5 failed: FATAL:  sorry, too many clients already\nmore"
    bad = storm.Storm(Answers([0.3] * 9, [full], 0.0, 3.0), [(0.0, 97)])
    result = storm.report({storm.OURS[0]: [fine] * 3, storm.OURS[1]: [fine, fine, bad]})
    storms, goals = result.tables
    assert storms.rows[0] == (storm.OURS[0], "100 %", "100", "100", "1.0", "9", "")
    assert storms.rows[1] == (storm.OURS[1], "96.6 %", "100", "100", "1.0", "97", "sorry, too many clients already")
    assert goals.rows == [(storm.OURS[0], "0", "0", "yes"), (storm.OURS[1], "0", "1", "**no**")]
    assert result.plots[1].series[storm.OURS[0]] == [(0.0, 9), (0.3, 4)]
    assert results.markdown(result)


def test_beside_the_reads_that_got_no_answer_it_is_told_what_the_client_said() -> None:
    own = "PoolTimeout: couldn't get a connection after 30.00 sec"
    errors = [TOO_LONG] * 9 + [own]
    result = storm.report({storm.OURS[0]: [storm.Storm(Answers([0.1], errors, 0.0, LONGEST), [])]})
    assert result.tables[0].rows[0][-1] == f"{TOO_LONG}; {own}"

"""Run a transaction again where that is safe, and only then.

The unit is a whole transaction: until its COMMIT is sent the server keeps nothing of it, so it may run again. A
connection that is lost during COMMIT leaves unknown whether it was kept: that is an error of its own, and the unit
runs again only where the caller says that doing it twice is as good as once.
"""

import functools
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Concatenate, Literal, ParamSpec, TypeVar

from shared import db, deadline
from shared.db.transaction import Isolation, Transaction
from shared.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    Error,
    PoolClosed,
    PoolTimeout,
    TransactionResolutionUnknown,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

# again: run the unit again, on any connection.
# reconnect: the connection is gone, or leads to a server that cannot write; run the unit on a new one.
# refresh: read the credentials anew, then reconnect. The connector does that once by itself at every connect.
# wait: the server is full, starting or failing over; run the unit once it answers.
# never: running it again would fail again, or might do it twice.
Action = Literal["again", "reconnect", "refresh", "wait", "never"]

# The one table; PostgreSQL manual, appendix A. What is not in it is `never`. docs/RETRY.md is compared with it.
ACTIONS: Mapping[str, Action] = {
    "40001": "again",  # serialization_failure
    "40P01": "again",  # deadlock_detected
    "08000": "reconnect",  # connection_exception
    "08001": "reconnect",  # sqlclient_unable_to_establish_sqlconnection
    "08003": "reconnect",  # connection_does_not_exist
    "08006": "reconnect",  # connection_failure
    "25006": "reconnect",  # read_only_sql_transaction: after a failover, the old primary
    "25P03": "reconnect",  # idle_in_transaction_session_timeout: a process was frozen in the middle
    "57P01": "reconnect",  # admin_shutdown
    "57P02": "reconnect",  # crash_shutdown
    "57P05": "reconnect",  # idle_session_timeout
    "28P01": "refresh",  # invalid_password
    "08004": "wait",  # sqlserver_rejected_establishment_of_sqlconnection
    "08P01": "wait",  # protocol_violation: how PgBouncer says query_wait_timeout
    "53300": "wait",  # too_many_connections
    "57P03": "wait",  # cannot_connect_now
}

ATTEMPTS = 6
PATIENCE = 15.0  # seconds for a server that cannot be reached: to restart, fail over or wake up
_FIRST_PAUSE = 0.05  # seconds; doubles with each attempt
_LONGEST_PAUSE = 2.0


def action_for(error: Exception) -> Action:
    """Tell what to do about an error of a transaction that was not kept."""
    if not isinstance(error, Error) or isinstance(error, DeadlineExceeded | PoolTimeout | PoolClosed):
        return "never"
    if error.sqlstate is not None:
        return ACTIONS.get(error.sqlstate, "never")
    # Without a SQLSTATE the network or the driver ended it.
    return "reconnect" if isinstance(error, DatabaseUnavailable) else "never"


def run_transaction(
    unit: Callable[Concatenate[Transaction, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `unit(tx, ...)` in a transaction, again where that is safe; give what it returns.

    It may run several times, so what it does beside the database must bear that. `retry` has the options.
    """
    return retry()(unit)(*args, **kwargs)


def retry(
    *,
    isolation: Isolation | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    attempts: int = ATTEMPTS,
) -> Callable[[Callable[Concatenate[Transaction, P], T]], Callable[P, T]]:
    """Make a function that takes a transaction first into one that opens it, and runs again where that is safe.

        @retry(isolation="serializable")
        def transfer(tx, source, target, cents): ...

        transfer(1, 2, 500)

    It begins at most `attempts` times, waits at most PATIENCE for a connection, and does neither past the deadline;
    the pauses grow and are drawn at random. With `idempotent` it also runs again where it is unknown whether the
    transaction was kept. Raises the last error, and TransactionResolutionUnknown.
    """

    def decorate(unit: Callable[Concatenate[Transaction, P], T]) -> Callable[P, T]:
        @functools.wraps(unit)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            patience = time.monotonic() + PATIENCE
            begun = pauses = 0
            earlier: Error | None = None
            while True:
                connected = False
                try:
                    with db.transaction(isolation=isolation, read_only=read_only) as tx:
                        connected = True
                        return unit(tx, *args, **kwargs)
                except Error as error:
                    if earlier is not None and not connected and isinstance(error, DeadlineExceeded):
                        raise earlier from None  # which says why; the pause took the time to find out more
                    earlier = error
                    begun += connected
                    over = begun >= attempts if connected else time.monotonic() >= patience
                    if over or not _may_run_again(error, idempotent) or not pause(pauses):
                        raise
                    log.info("running %s again after %s", getattr(unit, "__qualname__", unit), error.code)
                pauses += 1

        return run

    return decorate


def _may_run_again(error: Error, idempotent: bool) -> bool:
    if isinstance(error, TransactionResolutionUnknown):
        return idempotent
    return action_for(error) != "never"


def pause(earlier: int) -> bool:
    """Wait before the next attempt; False where the deadline leaves no time for the pause."""
    seconds = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**earlier))  # noqa: S311
    left = deadline.remaining()
    if left is not None and seconds >= left:
        return False
    time.sleep(seconds)
    return True

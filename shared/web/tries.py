"""Count wrong tries in this process's memory, for what must work while the database is down.

A second door: what is guessed at is a token of 16 characters or more. Each instance counts for itself, and remembers a
bounded number of networks. What people sign in with is counted for all instances together (shared/web/throttle.py).
"""

import math
import threading
import time

from starlette.requests import Request

from shared.db.entry import is_over
from shared.web.client_address import client_address, network_of
from shared.web.problem import Problem

MINUTES = 15
MOST = 10  # tries from one network in that time
NETWORKS = 1000  # the one that came first is forgotten

_lock = threading.Lock()
_tries: dict[str, tuple[int, float]] = {}  # how many, and from when on


def count(request: Request) -> None:
    """Count a try, before it is looked at. Raises Problem 429 with Retry-After where there were too many."""
    network, now = network_of(client_address(request)), time.time()  # by the wall clock: an instance may be frozen
    with _lock:
        tries, begun = _tries.get(network, (0, now))
        if is_over(begun, now, 60 * MINUTES):
            tries, begun = 0, now
        if tries >= MOST:
            wait = math.ceil(begun + 60 * MINUTES - now)
            raise Problem(429, "Too many attempts. Try again later.", headers={"Retry-After": str(wait)})
        if network not in _tries and len(_tries) >= NETWORKS:
            del _tries[next(iter(_tries))]
        _tries[network] = tries + 1, begun


def forgive(request: Request) -> None:
    """Forget the tries of a network: somebody there knew."""
    with _lock:
        _tries.pop(network_of(client_address(request)), None)

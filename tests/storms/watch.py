"""Who holds connections, sampled all the time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection

import psycopg

from tests.servers.postgres import APP
from tests.storms.fleet import Way

PERIOD = 0.1  # seconds between two samples
Series = list[tuple[float, float]]

_SQL = """
SELECT split_part(application_name, '/', 1), count(*) FROM pg_stat_activity
WHERE usename = %s AND datname = %s AND backend_type = 'client backend' GROUP BY 1
"""


def at(series: Series, moment: float) -> float:
    """Give what was held at a moment (second), as the steps of a series have it."""
    return next((number for second, number in reversed(series) if second <= moment), 0.0)


class Watch:
    """Count the connections of the instances' role to their database, for the time of a block."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._samples: list[tuple[float, Counter[str]]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.begun = time.monotonic()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def held(self, by: Collection[str] | None = None, since: float = 0.0) -> list[tuple[float, int]]:
        """Give each moment since then (monotonic), and how many connections there were, all or those of some."""
        return [
            (moment, sum(count for name, count in counts.items() if by is None or name in by))
            for moment, counts in self._samples
            if moment >= since
        ]

    def series(self, by: Collection[str] | None = None) -> Series:
        """Give what was held as points (second, number), without those that repeat the one before."""
        points: Series = []
        for moment, number in self.held(by):
            point = (round(moment - self.begun, 1), float(number))
            if not points or points[-1][1] != number:
                points.append(point)
        return [*points, point] if points else []

    def _watch(self) -> None:
        connection: psycopg.Connection[tuple[str, int]] | None = None
        while not self._over.wait(PERIOD):
            counts: Counter[str] = Counter()
            moment = time.monotonic()
            try:
                if connection is None:
                    connection = psycopg.connect(self._way.server.admin_url(), autocommit=True, connect_timeout=2)
                counts.update(dict(connection.execute(_SQL, [APP, self._way.database]).fetchall()))
            except psycopg.OperationalError:  # a server that is away holds nothing
                if connection is not None:
                    connection.close()
                connection = None
            self._samples.append((moment, counts))
        if connection is not None:
            connection.close()

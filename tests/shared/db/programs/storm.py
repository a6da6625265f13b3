"""Many serverless instances at once: processes x threads x reads, by the three arguments. Prints what they saw as JSON.

An instance that has served its requests stays, as on a platform: frozen, with whatever connections it holds.
"""

import importlib
import json
import multiprocessing
import signal
import sys
import threading
import time
from multiprocessing.synchronize import Barrier

from shared import db, settings
from shared.deadline import within
from shared.errors import Error

DEADLINE = 10.0  # seconds for each read
LONGEST = 120.0  # seconds for an instance


def read(count: int, number: int, seconds: list[float], errors: list[str]) -> None:
    for n in range(count):
        begun = time.monotonic()
        try:
            with within(DEADLINE):
                got = db.fetch_value("SELECT %(n)s::int FROM pg_class WHERE oid = 1259", {"n": number + n})
            if got != number + n:
                errors.append("another's row")
        except Error as error:
            errors.append(f"{error.code}: {error.message}")
        seconds.append(time.monotonic() - begun)


def instance(number: int, threads: int, reads: int, start: Barrier, results: "multiprocessing.Queue[str]") -> None:
    seconds: list[float] = []
    errors: list[str] = []
    running = [
        threading.Thread(target=read, args=(reads, (number * threads + n) * reads, seconds, errors))
        for n in range(threads)
    ]
    start.wait()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    results.put(json.dumps({"seconds": seconds, "errors": errors, "statistics": db.get_pool().statistics()}))
    signal.pause()


def main(processes: int, threads: int, reads: int) -> None:
    # The imports are paid for once.
    importlib.import_module(f"shared.db.{settings.get_settings().database_driver}_driver")
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(processes + 1), context.Queue()
    running = [
        context.Process(target=instance, args=(number, threads, reads, start, results)) for number in range(processes)
    ]
    for process in running:
        process.start()
    start.wait()
    begun = time.monotonic()
    answers = [json.loads(results.get(timeout=LONGEST)) for _ in running]
    seconds = sorted(second for answer in answers for second in answer["seconds"])
    print(  # noqa: T201 - the answer
        json.dumps(
            {
                "requests": len(seconds),
                "errors": [error for answer in answers for error in answer["errors"]],
                "duration": time.monotonic() - begun,
                "p50": seconds[len(seconds) // 2],
                "p99": seconds[len(seconds) * 99 // 100],
                "longest": seconds[-1],
                "opened": sum(answer["statistics"]["opened"] for answer in answers),
                "refused": sum(answer["statistics"]["failed"] for answer in answers),
            }
        )
    )
    for process in running:
        process.kill()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

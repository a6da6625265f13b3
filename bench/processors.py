"""Processors: one for what is measured, the others for what it talks to, as a function and its database have.

Where both share two, a client of several threads is measured by how often the kernel moves it between them: each takes
the interpreter from another on the other processor, which costs more than a read does.
"""

import os

_ALL = sorted(os.sched_getaffinity(0))


def step_aside() -> None:
    """Leave the first processor to what is measured: this process and what it starts from now on take the others."""
    os.sched_setaffinity(0, _ALL[1:] or _ALL)


def take_one() -> None:
    """Be measured: take the first processor alone. For a child that is about to begin, as is `take_all`."""
    os.sched_setaffinity(0, _ALL[:1])


def take_all(pid: int = 0) -> None:
    """Let a process, this one where none is given, and what it starts from now on take all processors."""
    os.sched_setaffinity(pid, _ALL)

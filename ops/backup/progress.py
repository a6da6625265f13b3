"""How far a transfer is: a bar on a terminal, nothing elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class Bar:
    """One bar: `done` and its total are bytes; `transferred`, where it is shown beside it, too."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total or None, written="")

    def advance(self, size: int) -> None:
        """Move on by `size` bytes."""
        self._progress.advance(self._task, size)

    def note(self, text: str) -> None:
        """Show a word beside the bar."""
        self._progress.update(self._task, written=text)


@contextmanager
def bar(title: str, total: int) -> Iterator[Bar]:
    """Show a bar on standard error until the block ends."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[written]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield Bar(progress, title, total)


def readable(size: int) -> str:
    """Write a number of bytes for people."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"

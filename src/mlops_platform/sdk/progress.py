"""A progress bar on a terminal, and silence elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LEAST_BYTES = 1024 * 1024
"""What is smaller is done before a bar is drawn."""


@contextmanager
def transfer(label: str, total_bytes: int | None, *, show: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Count bytes. `show` None means: when standard error is a terminal and the transfer is not a tiny one."""
    wanted = sys.stderr.isatty() and (total_bytes is None or total_bytes >= LEAST_BYTES) if show is None else show
    if not wanted:
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total_bytes)
        yield lambda count: progress.advance(task, count)


def _silent(_: int) -> None:
    return

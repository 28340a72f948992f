"""A progress bar for sandboxes on their way: only at a terminal, only where people read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .context import Output

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..transfer import Progress


@contextmanager
def transfer_bar(output: Output) -> Iterator[Progress | None]:
    """What to tell of a transfer; None if nobody looks. The bar appears with the first thing told."""
    if output is not Output.TABLE or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def progress(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=size)
            bars.update(tasks[name], completed=done)

        yield progress

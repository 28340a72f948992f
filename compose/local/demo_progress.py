"""Live progress of the demonstration's jobs: a bar on a terminal, one line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from schemas.job import FINAL, JobStatus
from schemas.messages.event import JobChange

OnChange = Callable[[JobChange], None]


@contextmanager
def progress(count: int) -> Iterator[OnChange]:
    """Show the changes of so many jobs."""
    if not sys.stdout.isatty():
        yield _lines(count)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    statuses: dict[int, JobStatus] = {}
    with Progress(*columns) as bar:
        task = bar.add_task("submitted", total=count)

        def on_change(change: JobChange) -> None:
            statuses[change.job] = change.status
            bar.update(task, completed=_ended(statuses), description=_summary(statuses))

        yield on_change


def _lines(count: int) -> OnChange:
    statuses: dict[int, JobStatus] = {}
    begin = time.monotonic()

    def on_change(change: JobChange) -> None:
        if statuses.get(change.job) == change.status:
            return
        statuses[change.job] = change.status
        ended = _ended(statuses)
        print(
            f"  {time.monotonic() - begin:5.1f} s  {ended}/{count}  job {change.job} {change.status.value}", flush=True
        )

    return on_change


def _ended(statuses: dict[int, JobStatus]) -> int:
    return sum(status in FINAL for status in statuses.values())


def _summary(statuses: dict[int, JobStatus]) -> str:
    return ", ".join(f"{number} {status.value}" for status, number in Counter(statuses.values()).items())

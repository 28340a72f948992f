"""Waiting for jobs, with a progress bar on a terminal: what ``job wait`` and ``submit --wait`` share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from schemas.job import FINAL, JobStatus

from .context import Output
from .exit_codes import ExitCode
from .printing import print_json

if TYPE_CHECKING:
    from schemas.messages.event import JobChange

    from ..client import Client


def wait_for(client: Client, ids: Sequence[int], timeout: float | None, output: Output) -> ExitCode:
    """Wait, show, and answer with the code: OK if all are Done, NO if one is not."""
    with _display(len(ids), output) as on_change:
        statuses = client.wait(ids, timeout, on_change, _say_away)
    if output is Output.JSON:
        print_json({"jobs": {str(job): status for job, status in statuses.items()}})
    elif output is Output.QUIET:
        typer.echo("\n".join(str(job) for job, status in statuses.items() if status is not JobStatus.DONE), nl=False)
    else:
        counts = Counter(statuses.values())
        typer.echo(", ".join(f"{number} {status}" for status, number in sorted(counts.items())))
    return ExitCode.OK if all(status is JobStatus.DONE for status in statuses.values()) else ExitCode.NO


def _say_away(away: bool) -> None:
    """Somebody who waits for hours should know for what."""
    words = "is away; the jobs go on, and this waits for it" if away else "is back"
    typer.echo(f"The message broker {words}.", err=True)


@contextmanager
def _display(count: int, output: Output) -> Iterator[Callable[[JobChange], None] | None]:
    if output is not Output.TABLE or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    last: dict[int, JobStatus] = {}
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("waiting", total=count)

        def on_change(change: JobChange) -> None:
            last[change.job] = change.status
            counts = Counter(last.values())
            ended = sum(number for status, number in counts.items() if status in FINAL)
            words = ", ".join(f"{number} {status}" for status, number in counts.items())
            progress.update(task, completed=count - len(last) + ended, description=words)

        yield on_change

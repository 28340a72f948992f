"""How it looks why jobs wait: the answer first, then what would help, then the figures."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from .printing import Column, age, clock, harmless, layout, paint, terminal_width, when

if TYPE_CHECKING:
    from schemas.messages.why import (
        Estimate,
        Hold,
        JobExplained,
        JobsWeighed,
        Obstacle,
        Outlook,
        Place,
        QueueDetail,
        QueueSummary,
        Sight,
        Weighed,
    )

UNNAMED = "Unknown"
"""The name of a job that was given none (DIRAC's)."""

LABEL = 13
"""Columns of the words in front."""


def print_explained(told: JobExplained) -> None:
    """Why a job is where it is."""
    now = time.time()
    _fact("Job", str(told.job))
    _fact("Status", f"{paint(told.status)} since {when(told.since, now)}", safe=True)
    _fact("Why", told.verdict)
    if told.outlook is not None:
        _fact("What helps", told.outlook.advice)
        _fact("Wait", _wait(told.estimate))
        _fact("Place", _place(told.place))
        if told.queue:
            _fact("Task queue", f"{told.queue} (pilotage queue show {told.queue})")
        _print_outlook(told.outlook)
    _as_of(told.as_of)


def print_queue(told: QueueDetail) -> None:
    """Everything about a task queue."""
    now, queue = time.time(), told.queue
    _fact("Task queue", str(queue.queue))
    _fact("Owner", f"{queue.owner} ({queue.group}, share {queue.share:g})")
    jobs = "job" if queue.waiting == 1 else "jobs"
    _fact("Waiting", f"{waiting(queue)} {jobs}, the oldest since {when(queue.oldest, now)}")
    _fact("Why", told.outlook.verdict)
    _fact("What helps", told.outlook.advice)
    _fact("Next job", _wait(told.estimate))
    _fact("Place", _place(told.place))
    if told.next:
        _fact("First jobs", ", ".join(str(one.job) for one in told.next))
    _print_outlook(told.outlook)
    _as_of(told.as_of)


def waiting(queue: QueueSummary) -> str:
    """How many jobs wait, where the count stopped."""
    return f"> {queue.waiting}" if queue.more else str(queue.waiting)


# -- dry run ------------------------------------------------------------------------------------------------------


def would_run(told: JobsWeighed) -> bool:
    """Whether the submission would be taken and each of its jobs fits a pilot that is alive."""
    return not told.limit and all(_runs(one) for one in told.classes)


def _runs(one: Weighed) -> bool:
    outlook = one.outlook
    return outlook is not None and bool(outlook.sight.fitting) and not any(hold.whole for hold in outlook.holds)


def print_weighed(told: JobsWeighed, *, brief: bool) -> None:
    """What would become of jobs that were not submitted; ``brief``: a line each kind."""
    for warning in told.warnings if not brief else ():
        typer.echo(f"warning: {harmless(warning.message)}", err=True)
    if told.limit:
        typer.echo(f"The submission would be refused: {harmless(told.limit)}")
    for number, one in enumerate(told.classes):
        text = one.refused or (one.outlook.verdict if one.outlook is not None else "")
        if brief:
            typer.echo(f"{one.jobs} {harmless(text)}")
            continue
        if number:
            typer.echo("")
        _print_class(told, one)
    if brief:
        return
    if told.looked_at < told.jobs:
        typer.echo(f"Only the first {told.looked_at} of {told.jobs} jobs were looked at.", err=True)
    if told.more:
        typer.echo(f"The jobs ask for more kinds of nodes than the {len(told.classes)} that are told.", err=True)
    typer.echo("")
    typer.echo("Nothing was submitted.")


def _print_class(told: JobsWeighed, one: Weighed) -> None:
    name = f" {one.name!r}" if one.name not in {"", UNNAMED} else ""
    which = f"job {one.first}{name}" if one.jobs == 1 else f"{one.jobs} jobs, the first is job {one.first}{name}"
    _fact("Jobs", f"{which} of {told.jobs}")
    if one.outlook is None:
        _fact("Why", f"It could never run: {one.refused}")
        return
    _fact("Now", one.outlook.verdict)
    _fact("What helps", one.outlook.advice)
    _fact("Wait", _wait(one.estimate))
    _fact("Place", _place(one.place))
    _print_outlook(one.outlook)


# -- parts --------------------------------------------------------------------------------------------------------


def _print_outlook(outlook: Outlook) -> None:
    _fact("Asks for", "; ".join(outlook.requirements))
    _fact("Pilots", _pilots(outlook.sight))
    _fact("Sites", _sites(outlook.sight))
    for hold in outlook.holds:
        _fact("Held by", _hold(hold))
    if outlook.obstacles:
        typer.echo("")
        _print_obstacles(outlook.obstacles)


def _print_obstacles(obstacles: Sequence[Obstacle]) -> None:
    """A table, each row followed by its nearest misses."""
    columns = [Column("FAILS AT"), Column("PILOTS", right=True), Column("IDLE", right=True),
               Column("ONLY THIS", right=True), Column("SITES", right=True),
               Column("BECAUSE", elastic=True)]  # fmt: skip
    rows = [[one.condition, str(one.pilots), str(one.parked), str(one.only), str(one.sites), one.needs or "-"]
            for one in obstacles]  # fmt: skip
    head, *lines = layout(columns, rows, terminal_width())
    typer.echo(head)
    for line, one in zip(lines, obstacles, strict=True):
        typer.echo(line)
        for miss in one.closest:
            _wrapped(f"  {miss}", indent="    ")


def _pilots(sight: Sight) -> str:
    if not sight.pilots:
        return "none is alive"
    asks = "asks" if sight.parked == 1 else "ask"
    fits = f"{sight.fitting} of them fit" + (f", {sight.fitting_parked} ask now" if sight.fitting else "")
    return f"{sight.pilots} alive, {sight.parked} {asks} for a job now; {fits}"


def _sites(sight: Sight) -> str:
    if not sight.sites:
        return f"none is registered: any will do; {sight.fitting_sites} have a pilot that fits"
    return (
        f"{sight.sites} registered, {sight.usable} usable; {sight.possible_sites} could run it, "
        f"{sight.fitting_sites} have a pilot that fits"
    )


def _hold(hold: Hold) -> str:
    return hold.text if hold.whole else f"{hold.text} (holds it in part)"


def _wait(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.seconds is None:
        return estimate.basis
    if estimate.seconds < 1:
        return f"any moment now: {estimate.basis}"
    return f"about {age(estimate.seconds)}: {estimate.basis}"


def _place(place: Place | None) -> str:
    if place is None:
        return ""
    before = "1 job" if place.before == 1 and not place.more else f"{place.before} jobs"
    whose = f"all in {place.group}" if place.sharing else "the same owner"
    after = f"after {'more than ' if place.more else ''}{before} of {whose}"
    parts = [f"{after if place.before else f'first of {whose}'} (priority {place.priority})"]
    if place.owners_waiting > 1:
        had = _had(place.owner_share, place.owner_used) if place.owner_share != 1.0 or place.owner_used else ""
        parts.append(f"its owner's turn{had} is {_nth(place.owners_before)} of {place.owners_waiting} in {place.group}")
    if place.groups_waiting > 1:
        had = _had(place.group_share, place.group_used)
        parts.append(f"the turn of {place.group}{had} is {_nth(place.groups_before)} of {place.groups_waiting}")
    if place.background:
        parts.append(f"{place.group} is a background group: it gets only what others leave")
    return "; ".join(parts)


def _had(share: float, used: float) -> str:
    return f" (share {share:g}{f', {used:,.0f} processors lately' if used else ''})"


def _nth(before: int) -> str:
    number = before + 1
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _as_of(moment: float) -> None:
    typer.echo("")
    typer.echo(f"As of {clock(moment)[:19]}.")


def _fact(name: str, text: str, *, safe: bool = False) -> None:
    """A word and what there is to say, wrapped at a terminal; nothing if there is nothing."""
    if text:
        _wrapped(f"{name + ':':<{LABEL}}{text if safe else harmless(text)}", indent=" " * LABEL, safe=True)


def _wrapped(text: str, indent: str, *, safe: bool = False) -> None:
    text = text if safe else harmless(text)
    if not sys.stdout.isatty():
        typer.echo(text)
        return
    lines = textwrap.wrap(text, terminal_width(), subsequent_indent=indent, break_long_words=False)
    typer.echo("\n".join(lines) or text)

"""``pilotage queue``: task queues, what fits them, and why nothing takes them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from .context import Output, OutputOption, client_of, make_app
from .ids import MAX_ID
from .printing import Column, print_json, print_table, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.messages.why import QueueSummary

app = make_app("queue", "See what waits for pilots, and why.")


@app.command("list")
def list_queues(
    ctx: typer.Context,
    group: Annotated[str, typer.Option(help="Only of this group.")] = "",
    owner: Annotated[str, typer.Option(help="Only of this DN or common name.")] = "",
    site: Annotated[str, typer.Option(help="Only those whose jobs may run at this site.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, longest waiting first.")] = 25,
    output: OutputOption = Output.TABLE,
) -> None:
    """List task queues with waiting jobs, those that wait longest first.

    A task queue is what one owner's jobs in one group have in common that ask for the same of a node. You see your own;
    operators and monitors see all. FIT: pilots whose last offer would do; IDLE: of these, those that ask for a job now.
    """
    with client_of(ctx) as client:
        listing = client.why.queues(owner=owner, group=group, site=site, limit=limit)
    if output is Output.JSON:
        print_json(listing)
    elif output is Output.QUIET:
        typer.echo("".join(f"{queue.queue}\n" for queue in listing.queues), nl=False)
    elif not listing.queues:
        typer.echo("Nothing such is waiting." if group or owner or site else "Nothing is waiting.", err=True)
    else:
        _print_queues(listing.queues)
        if listing.more:
            typer.echo("There are more; --limit, --group, --owner or --site show others.", err=True)


def _print_queues(queues: Sequence[QueueSummary]) -> None:
    from .job import short_name
    from .why_printing import waiting

    now = time.time()
    columns = [
        Column("QUEUE", right=True),
        Column("WAITING", right=True),
        Column("OLDEST"),
        Column("PRIO", right=True),
        Column("FIT", right=True),
        Column("IDLE", right=True),
        Column("GROUP", elastic=True),
        Column("SHARE", right=True),
        Column("OWNER", elastic=True),
        Column("ASKS FOR", elastic=True),
    ]
    print_table(
        columns,
        [
            [
                str(queue.queue),
                waiting(queue),
                when(queue.oldest, now),
                str(queue.priority),
                str(queue.fitting),
                str(queue.fitting_parked),
                queue.group,
                f"{queue.share:g}",
                short_name(queue.owner),
                queue.requirements,
            ]
            for queue in queues
        ],
    )


@app.command()
def show(
    ctx: typer.Context,
    queue: Annotated[int, typer.Argument(metavar="QUEUE", min=1, max=MAX_ID, help="Task queue id.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show everything about one task queue: what it asks for, its first jobs, why nothing takes them.

    --output quiet prints the ids of its first jobs.
    """
    from .why_printing import print_queue

    with client_of(ctx) as client:
        detail = client.why.queue(queue)
    if output is Output.JSON:
        print_json(detail)
    elif output is Output.QUIET:
        typer.echo("".join(f"{one.job}\n" for one in detail.next), nl=False)
    else:
        print_queue(detail)

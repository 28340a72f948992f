"""``pilotage admin history``: who changed what in the registry, when, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .context import Output, OutputOption, client_of
from .entries import difference_line
from .ids import MAX_ID
from .printing import clock, harmless, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.messages.registrar import HistoryLine


def history(
    ctx: typer.Context,
    kind: Annotated[str, typer.Option(help="Only user, group, member, service, site, se, ce, rule or limit.")] = "",
    name: Annotated[str, typer.Option(help="Only this entry: DN or name.")] = "",
    actor: Annotated[str, typer.Option(help="Only what this DN did, or this source (seed, sync:NAME).")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")] = 100,
    before: Annotated[int, typer.Option(min=0, max=MAX_ID, help="Only those below this number: the next page.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show who changed what, when and why, newest first."""
    from schemas.errors import InvalidInputError
    from schemas.messages.registrar import EntryKind

    if kind and kind not in set(EntryKind):
        raise InvalidInputError(f"there is no kind {kind!r}: say one of {', '.join(EntryKind)}")
    with client_of(ctx) as client:
        wanted = EntryKind(kind) if kind else None
        lines = client.registry.history(kind=wanted, name=name, actor=actor, before=before, limit=limit)
    if output is Output.JSON:
        print_json(lines)
    elif output is Output.QUIET:
        typer.echo("".join(f"{line.id}\n" for line in lines), nl=False)
    elif not lines:
        typer.echo("Nothing was changed.", err=True)
    else:
        print_lines(lines)


def print_lines(lines: Sequence[HistoryLine]) -> None:
    """Two lines for each change: when, who and why; then what."""
    from schemas.messages.registrar import Difference

    for line in lines:
        why = f"  {line.reason}" if line.reason else ""
        who = line.actor if line.source in {"operator", line.actor} else f"{line.actor} ({line.source})"
        typer.echo(harmless(f"{line.id:>6}  {clock(line.time)[:19]}  {who}{why}"))
        typer.echo(harmless(f"        {difference_line(Difference(before=line.before, after=line.after))}"))

"""``pilotage admin sync``: let the registry follow the VO's own lists of members now."""

from __future__ import annotations

from typing import Annotated

import typer

from .context import Output, OutputOption, client_of
from .entries import DryRunOption, print_differences
from .exit_codes import ExitCode
from .printing import harmless, print_json


def sync(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of the source; all if none is named.")] = "",
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it stays in the history.")] = "",
    dry_run: DryRunOption = False,
    force: Annotated[bool, typer.Option("--force", help="Even if it takes away much, or the last operator.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Read a VO's source now and do what it says; --dry-run shows the difference."""
    with client_of(ctx) as client:
        answer = client.registry.sync(source, reason=reason, dry_run=dry_run, force=force)
    if output is Output.JSON:
        print_json(answer)
    elif output is Output.QUIET:
        entries = (entry for one in answer.outcomes for each in one.differences if (entry := each.after or each.before))
        names = dict.fromkeys(entry.key[1] for entry in entries)
        typer.echo("".join(f"{harmless(name)}\n" for name in names), nl=False)
    else:
        for one in answer.outcomes:
            if not one.ok:
                typer.echo(f"error: {one.source}: {harmless(one.reason)}", err=True)
            else:
                typer.echo(f"{one.source}: {one.users} users")
            for note in one.notes:
                typer.echo(f"note: {harmless(note)}", err=True)
            print_differences(one.differences, one.omitted, dry_run=dry_run)
    if not all(one.ok for one in answer.outcomes):
        raise typer.Exit(ExitCode.NO)

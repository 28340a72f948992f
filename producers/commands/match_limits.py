"""``pilotage admin match-limit``: how many jobs may run at once, and how long after each other they start."""

from __future__ import annotations

from typing import Annotated

import typer

from .context import Output, OutputOption, client_of, make_app
from .entries import ContainsOption, DryRunOption, ReasonOption, change, changes_of, list_entries, show_entry

match_limits = make_app("match-limit", "Limits of the matcher: running jobs, and the delay between starts.")

ScopeArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SCOPE",
        help="One or two of site=, ce=, job-type=, owner= (a DN), group=; the value * means each value separately.",
    ),
]
RunningOption = Annotated[int | None, typer.Option(min=0, help="Most jobs with a live lease; 0 lets none start.")]
DelayOption = Annotated[
    float | None, typer.Option("--delay", min=0, max=86_400, help="Least seconds between two matches; 0 for none.")
]


@match_limits.command("list")
def list_match_limits(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List the matcher's limits. Each counts by itself: a job starts if all that concern it have room."""
    from schemas.messages.registrar import EntryKind

    fields = (("SCOPE", "scope"), ("RUNNING", "running"), ("DELAY", "delay_seconds"), ("REASON", "reason"),
              ("FROM", "sources"))  # fmt: skip
    list_entries(ctx, EntryKind.MATCH_LIMIT, fields, output, contains=contains)


@match_limits.command("show")
def show_match_limit(ctx: typer.Context, scope: ScopeArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a limit and its last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.MATCH_LIMIT, _text(scope), output)


@match_limits.command("set")
def set_match_limit(
    ctx: typer.Context,
    scope: ScopeArgument,
    reason: ReasonOption,
    running: RunningOption = None,
    delay: DelayOption = None,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Limit jobs, like: set site=LCG.CERN.ch job-type=MCSim --running 100 --delay 10 -r 'why'.

    What is not named stays. What runs already goes on; a lower limit only keeps new jobs from starting.
    """
    from schemas.entries import MatchLimitEntry
    from schemas.errors import InvalidInputError
    from schemas.messages.registrar import EntryKind, Operation

    if running is None and delay is None:
        raise InvalidInputError("say --running N, --delay SECONDS, or both")
    entry = MatchLimitEntry(scope=_text(scope), running=running, delay_seconds=delay, reason=reason)
    with client_of(ctx) as client:
        present = {one.entry.key for one in client.registry.entries(EntryKind.MATCH_LIMIT, names=(entry.scope,))}
        operation = Operation.SET if entry.key in present else Operation.ADD
        change(ctx, changes_of(operation, [entry]), reason=reason, dry_run=dry_run, output=output, client=client)


@match_limits.command("remove")
def remove_match_limit(
    ctx: typer.Context,
    scope: ScopeArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back a limit of operators; the seed's, if it has one, counts again."""
    from schemas.entries import MatchLimitEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [MatchLimitEntry(scope=_text(scope))])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


def _text(words: list[str]) -> str:
    from schemas.errors import InvalidInputError
    from schemas.limits import make_scope, parse_scope, scope_text

    try:
        return scope_text(make_scope(words) if len(words) > 1 else parse_scope(words[0]))
    except InvalidInputError:
        if len(words) > 1 or not words[0].startswith("owner="):
            raise
        return scope_text(make_scope(words))  # a DN may have commas, and a person does not write "\\," for them

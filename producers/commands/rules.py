"""``pilotage admin rule|limit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import InvalidInputError

from .context import Output, OutputOption, client_of, make_app
from .entries import (
    ContainsOption,
    DryRunOption,
    NameArgument,
    ReasonOption,
    change,
    changes_of,
    list_entries,
    show_entry,
)

if TYPE_CHECKING:
    from schemas.access import Measure

rules = make_app("rule", "Exceptions from the authorization table.")
limits = make_app("limit", "Limits that differ from the built-in ones.")

WhoArgument = Annotated[str, typer.Argument(metavar="WHO", help="dn:DN, group:NAME, property:NAME or '*'.")]
WhatArgument = Annotated[
    str, typer.Argument(metavar="WHAT", help="A message such as job.submit.v1, payload.run, or '*'.")
]
LimitedArgument = Annotated[str, typer.Argument(metavar="WHO", help="dn:DN, group:NAME or '*' (each user).")]
MeasureArgument = Annotated[str, typer.Argument(metavar="MEASURE", help="Such as active-jobs; a wrong word lists all.")]


# -- rules ------------------------------------------------------------------------------------------------------


@rules.command("list")
def list_rules(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List access rules; a denial wins over every grant."""
    from schemas.messages.registrar import EntryKind

    fields = (("RULE", "name"), ("EFFECT", "effect"), ("WHO", "who"), ("WHAT", "what"), ("SITE", "site"),
              ("REASON", "reason"))  # fmt: skip
    list_entries(ctx, EntryKind.RULE, fields, output, contains=contains)


@rules.command("show")
def show_rule(ctx: typer.Context, rule: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a rule and its last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.RULE, rule, output)


RuleSiteOption = Annotated[str, typer.Option("--site", "-s", help="At which site, for what is done at sites.")]


@rules.command("allow")
def allow_rule(
    ctx: typer.Context,
    rule: NameArgument,
    who: WhoArgument,
    what: WhatArgument,
    reason: ReasonOption,
    site: RuleSiteOption = "*",
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let somebody do what his group's properties do not."""
    _add_rule(ctx, "allow", (rule, who, what, site), reason, dry_run, output)


@rules.command("deny")
def deny_rule(
    ctx: typer.Context,
    rule: NameArgument,
    who: WhoArgument,
    what: WhatArgument,
    reason: ReasonOption,
    site: RuleSiteOption = "*",
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forbid something; the reason is told to whom it refuses."""
    _add_rule(ctx, "deny", (rule, who, what, site), reason, dry_run, output)


def _add_rule(
    ctx: typer.Context, effect: str, words: tuple[str, str, str, str], reason: str, dry_run: bool, output: Output
) -> None:
    from schemas.access import Effect
    from schemas.entries import RuleEntry
    from schemas.messages.registrar import Operation

    name, who, what, site = words
    entry = RuleEntry(name=name, effect=Effect(effect), who=who, what=what, site=site, reason=reason)
    change(ctx, changes_of(Operation.ADD, [entry]), reason=reason, dry_run=dry_run, output=output)


@rules.command("remove")
def remove_rule(
    ctx: typer.Context,
    rule: NameArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back a rule of operators."""
    from schemas.entries import RuleEntry
    from schemas.messages.registrar import Operation

    change(ctx, changes_of(Operation.REMOVE, [RuleEntry(name=rule)]), reason=reason, dry_run=dry_run, output=output)


# -- limits -----------------------------------------------------------------------------------------------------


@limits.command("list")
def list_limits(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List limits."""
    from schemas.messages.registrar import EntryKind

    fields = (("WHO", "who"), ("MEASURE", "measure"), ("VALUE", "value"), ("FROM", "sources"))
    list_entries(ctx, EntryKind.LIMIT, fields, output, contains=contains)


@limits.command("set")
def set_limit(
    ctx: typer.Context,
    who: LimitedArgument,
    measure: MeasureArgument,
    value: Annotated[int, typer.Argument(metavar="VALUE", min=0, max=2**53, help="The most; 0 allows nothing.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Set a limit; the most special one counts: dn:, then group:, then '*'."""
    from schemas.entries import LimitEntry
    from schemas.messages.registrar import EntryKind, Operation

    entry = LimitEntry(who=who, measure=_measure(measure), value=value)
    with client_of(ctx) as client:
        present = {one.entry.key for one in client.registry.entries(EntryKind.LIMIT, names=(who,))}
        operation = Operation.SET if entry.key in present else Operation.ADD
        changes = changes_of(operation, [entry])
        change(ctx, changes, reason=reason, dry_run=dry_run, output=output, client=client)


@limits.command("remove")
def remove_limit(
    ctx: typer.Context,
    who: LimitedArgument,
    measure: MeasureArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back a limit of operators: the built-in one, or the seed's, counts again."""
    from schemas.entries import LimitEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [LimitEntry(who=who, measure=_measure(measure))])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


def _measure(word: str) -> Measure:
    from schemas.access import Measure

    try:
        return Measure(word)
    except ValueError:
        raise InvalidInputError(f"there is no measure {word!r}: say one of {', '.join(Measure)}") from None

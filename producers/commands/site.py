"""``pilotage site``: sites, and whether they get jobs (operators)."""

from __future__ import annotations

from typing import Annotated

import typer

from .context import Output, OutputOption, make_app
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

app = make_app("site", "List sites, ban them and allow them again.")

SitesArgument = Annotated[list[str], typer.Argument(metavar="SITES", help="Names of sites.")]


@app.command("list")
def list_sites(ctx: typer.Context, contains: ContainsOption = "", output: OutputOption = Output.TABLE) -> None:
    """List sites, and whether they get jobs."""
    from schemas.messages.registrar import EntryKind

    fields = (("SITE", "name"), ("USABLE", "usable"), ("FROM", "sources"), ("REASON", "reason"))
    list_entries(ctx, EntryKind.SITE, fields, output, contains=contains)


@app.command()
def show(ctx: typer.Context, site: NameArgument, output: OutputOption = Output.TABLE) -> None:
    """Show a site and its last changes."""
    from schemas.messages.registrar import EntryKind

    show_entry(ctx, EntryKind.SITE, site, output)


@app.command()
def ban(
    ctx: typer.Context,
    sites: SitesArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give no jobs to these sites any more; what runs there goes on."""
    _set_usable(ctx, sites, False, reason, dry_run, output)


@app.command()
def allow(
    ctx: typer.Context,
    sites: SitesArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give jobs to these sites again."""
    _set_usable(ctx, sites, True, reason, dry_run, output)


@app.command()
def add(
    ctx: typer.Context,
    sites: SitesArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make new sites known."""
    from schemas.entries import SiteEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.ADD, [SiteEntry(name=name) for name in sites])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


@app.command()
def remove(
    ctx: typer.Context,
    sites: SitesArgument,
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget sites that operators made known."""
    from schemas.entries import SiteEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.REMOVE, [SiteEntry(name=name) for name in sites])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)


def _set_usable(ctx: typer.Context, sites: list[str], usable: bool, reason: str, dry_run: bool, output: Output) -> None:
    from schemas.entries import SiteEntry
    from schemas.messages.registrar import Operation

    changes = changes_of(Operation.SET, [SiteEntry(name=name, usable=usable) for name in sites])
    change(ctx, changes, reason=reason, dry_run=dry_run, output=output)

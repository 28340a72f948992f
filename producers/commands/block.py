"""``pilotage admin block``: the words for three in the morning. Each is short for another command."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import NotFoundError
from .context import Output, OutputOption, client_of, make_app
from .entries import DryRunOption, ForceOption, ReasonOption, change, changes_of
from .people import suspend_user
from .printing import harmless
from .site import ban

app = make_app("block", "Take rights away, at once (three in the morning).")


@app.command("user")
def block_user(
    ctx: typer.Context,
    users: Annotated[list[str], typer.Argument(metavar="USERS", help="DNs or nicknames.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Suspend users: as `admin user suspend`. Undone by `admin user allow`."""
    suspend_user(ctx, users, reason, dry_run, force, output)


@app.command("pilot")
def block_pilot(
    ctx: typer.Context,
    pilots: Annotated[list[str], typer.Argument(metavar="PILOTS", help="DNs of pilots, or ids of their enrolments.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Trust pilots no more: those of the registry are suspended, enrolled ones are revoked for good."""
    from schemas.entries import UserEntry
    from schemas.messages.registrar import Operation

    from ..enrolments import revoke

    registered: list[UserEntry] = []
    enrolled: list[str] = []
    with client_of(ctx) as client:
        for name in pilots:
            try:
                registered.append(UserEntry(dn=client.registry.dn_of(name), suspended=True))
            except NotFoundError:
                enrolled.append(name)
        if registered:
            changes = changes_of(Operation.SET, registered)
            change(ctx, changes, reason=reason, dry_run=dry_run, output=output, client=client)
        found = revoke(client, enrolled, reason) if enrolled and not dry_run else ()
    for one in found:
        typer.echo(harmless(one.id if output is Output.QUIET else f"revoked {one.id} {one.identity}".rstrip()))
    known = {name for one in found for name in (one.id, one.identity)}
    missing = [name for name in enrolled if name not in known]
    if dry_run and enrolled:
        typer.echo(f"Would be revoked for good, if enrolled here: {harmless(', '.join(enrolled))}", err=True)
    elif missing:
        raise NotFoundError(f"neither in the registry nor enrolled: {', '.join(missing)}")


@app.command("site")
def block_site(
    ctx: typer.Context,
    sites: Annotated[list[str], typer.Argument(metavar="SITES", help="Names of sites.")],
    reason: ReasonOption,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ban sites: as `site ban`. What runs there goes on. Undone by `site allow`."""
    ban(ctx, sites, reason, dry_run, output)

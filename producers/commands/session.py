"""``pilotage session``: who is connected, and cutting somebody off (operators)."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from schemas.messages.sessions import CutSessions, QuerySessions, SessionListing, SessionsEnded

from ..errors import AwayError, NotFoundError
from .context import Output, OutputOption, client_of, make_app
from .printing import Column, print_json, print_table, when

app = make_app("session", "See who is connected, and cut connections (operators).")


@app.command("list")
def list_sessions(
    ctx: typer.Context,
    who: Annotated[str, typer.Argument(metavar="[WHO]", help="DN, client id or group; all by default.")] = "",
    kind: Annotated[str, typer.Option(help="Only these: user, pilot.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the latest logins first.")] = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """List who is connected now."""
    with client_of(ctx) as client:
        listing = client.ask(QuerySessions(who=who, kind=kind, limit=limit), SessionListing)
    if output is Output.JSON:
        print_json(listing)
    elif output is Output.QUIET:
        typer.echo("".join(f"{one.client}\n" for one in listing.sessions), nl=False)
    elif not listing.sessions:
        typer.echo("Nobody.", err=True)
    else:
        now = time.time()
        columns = [Column("CLIENT"), Column("KIND"), Column("GROUP"), Column("SINCE"), Column("IDENTITY", elastic=True)]
        print_table(columns, [[one.client, one.kind or "-", one.group or "-", when(one.since, now), one.identity or "-"]
                              for one in listing.sessions])  # fmt: skip
        if listing.total > len(listing.sessions):
            typer.echo(f"{listing.total} in all; --limit shows more.", err=True)


@app.command()
def cut(
    ctx: typer.Context,
    who: Annotated[str, typer.Argument(metavar="WHO", help="DN (all connections of somebody) or client id.")],
    reason: Annotated[str, typer.Option(help="Why: told to whom it hits, and kept in the audit.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Close the connections of somebody now; he can log in again, unless he is suspended."""
    with client_of(ctx) as client:
        ended = client.ask(CutSessions(who=who, reason=reason), SessionsEnded)
    if output is Output.JSON:
        print_json(ended)
    elif output is Output.QUIET:
        typer.echo(str(ended.connections))
    else:
        typer.echo(f"Closed {_number(ended.connections, 'connection')} of {_number(ended.clients, 'client')}.")
        typer.echo("To keep somebody out: pilotage admin user suspend DN --reason ...", err=True)
    if ended.left:
        left = ", ".join(ended.left[:5]) + (", ..." if len(ended.left) > 5 else "")
        raise AwayError(f"not closed: {left}: {ended.reason}")
    if not ended.connections:
        raise NotFoundError(f"{who} is not connected")


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"

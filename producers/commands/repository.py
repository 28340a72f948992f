"""``pilotage repository``: the proxy repository, for operators."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from .context import Output, OutputOption, client_of, make_app
from .printing import Column, age, harmless, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.messages.proxies import MasterKey

app = make_app("repository", "See the proxy repository, change its master key.")

FIRST_RELEASE = "(first release)"
"""In place of a key's id: rows of the first release name none."""

DnArgument = Annotated[str, typer.Argument(metavar="DN", help="Of the owner: /DC=…/CN=…")]


@app.command()
def status(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Show the master keys and what each still protects."""
    with client_of(ctx) as client:
        found = client.repository.status()
    if output is Output.JSON:
        print_json(found)
        return
    if output is Output.QUIET:
        typer.echo("".join(f"{key.id}\n" for key in found.keys if key.id), nl=False)
        return
    _print_keys(found.keys)
    typer.echo(f"Renewal by MyProxy: {_yes(found.renews)}; VOMS attributes: {_yes(found.adds_attributes)}")


@app.command("list")
def list_proxies(
    ctx: typer.Context,
    owner: Annotated[str, typer.Option(metavar="DN", help="Only of this owner.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List whose proxies are stored, and until when."""
    with client_of(ctx) as client:
        found = list(client.repository.proxies(owner))
    if output is Output.JSON:
        print_json(found)
    elif output is Output.QUIET:
        typer.echo("".join(f"{harmless(one.owner)}\n" for one in found), nl=False)
    elif not found:
        typer.echo("No proxies are stored.", err=True)
    else:
        now = time.time()
        columns = [Column("OWNER", elastic=True), Column("GROUP"), Column("FOR"), Column("JOBS", right=True),
                   Column("ENDS"), Column("KEY")]  # fmt: skip
        rows = [[one.owner, one.group, f"submission {one.submission}" if one.submission else "account", str(one.jobs),
                 f"in {age(one.not_after - now)}", one.key[:8] or "-"] for one in found]  # fmt: skip
        print_table(columns, rows)
        for one in found:
            if one.trouble:
                typer.echo(harmless(f"{one.owner} ({one.group}): {one.trouble}"), err=True)


@app.command()
def reencrypt(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Encrypt everything with the newest master key, which stands first in the service's configuration."""
    with client_of(ctx) as client:
        answer = client.repository.reencrypt()
    if output is Output.JSON:
        print_json(answer)
    else:
        if output is Output.TABLE:
            typer.echo(f"{answer.done} private keys encrypted anew")
            _print_keys(answer.keys)
        if answer.unreadable:
            text = f"{answer.unreadable} cannot be read with any master key at hand; they stay until they end"
            typer.echo(f"warning: {text}", err=True)
        if answer.left:
            typer.echo(f"warning: {answer.left} are left: run it again", err=True)
    raise typer.Exit(1 if answer.left or answer.unreadable else 0)


@app.command()
def delete(
    ctx: typer.Context,
    owner: DnArgument,
    group: Annotated[str, typer.Option(help="Only of this group.")] = "",
    reason: Annotated[str, typer.Option(help="Why; goes into the audit.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Forget somebody's stored proxies with their keys; waiting jobs then want a new delegation."""
    with client_of(ctx) as client:
        count = client.repository.delete(owner, group, reason)
    if output is Output.JSON:
        print_json({"count": count})
    elif output is Output.TABLE:
        typer.echo(f"{count} {'proxy' if count == 1 else 'proxies'} deleted")
    raise typer.Exit(0 if count else 1)


def _print_keys(keys: Sequence[MasterKey]) -> None:
    rows = [[key.id or FIRST_RELEASE, str(key.rows), _state(key)] for key in keys]
    print_table([Column("MASTER KEY"), Column("PROTECTS", right=True), Column("STATE", elastic=True)], rows)


def _state(key: MasterKey) -> str:
    if key.newest:
        return "newest: encrypts"
    if not key.id:
        return "read with whichever key fits; reencrypt"
    if not key.at_hand:
        return "MISSING: what it protects cannot be read"
    return "still needed: reencrypt" if key.rows else "not needed any more: its file may be removed"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"

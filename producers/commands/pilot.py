"""``pilotage pilot``: one-time secrets for pilots, who used them, and pilots that are trusted no more (operators)."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConfigurationError, InvalidInputError

from ..errors import NotFoundError
from .context import Output, OutputOption, client_of, make_app
from .printing import Column, age, harmless, print_json, print_table, when

if TYPE_CHECKING:
    from schemas.messages.enrolment import EnrolmentInfo, EnrolmentListing

app = make_app("pilot", "Enrol pilots, list and revoke them (operators).")
enrolments = make_app("enrolments", "List the enrolments of pilots, and revoke them.")
app.add_typer(enrolments)

MAX_COUNT = 10_000
"""Secrets in one command: one submission of pilots to a large site."""

DEFAULT_HOURS = 96.0
"""Life of a pilot: the longest batch slots of most sites, and a day more."""

DEFAULT_WAIT_HOURS = 72.0
"""How long a secret may wait in a batch queue."""

MAX_HOURS, MAX_WAIT_HOURS = 366 * 24.0, 30 * 24.0
"""As the service bounds them."""

ReasonOption = Annotated[str, typer.Option(help="Why; stays with the pilot.")]
WhomArgument = Annotated[list[str], typer.Argument(metavar="WHOM", help="Ids of enrolments, or DNs of pilots.")]


@app.command()
def enrol(
    ctx: typer.Context,
    site: Annotated[str, typer.Option(help="Where the pilots will run; they are bound to it.")],
    count: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many pilots.")] = 1,
    hours: Annotated[float, typer.Option(min=0.1, max=MAX_HOURS, help="Longest life of each pilot.")] = DEFAULT_HOURS,
    wait_hours: Annotated[
        float, typer.Option(min=0.01, max=MAX_WAIT_HOURS, help="How long the secrets may wait to be used.")
    ] = DEFAULT_WAIT_HOURS,
    group: Annotated[str, typer.Option(help="Group of pilots; needed where there are several.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the secrets, one file each; else they go to a pipe, one a line.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make one-time secrets, each good for one pilot at one site; their public halves alone go to the deployment."""
    from ..enrolments import create, write_secret

    if not (math.isfinite(hours) and math.isfinite(wait_hours)):
        raise InvalidInputError("hours must be a number")
    if out is None and _at_terminal():
        raise InvalidInputError("secrets are not shown on a terminal: say --out FOLDER, or send them into a pipe")
    if out is not None and not out.is_dir():
        raise ConfigurationError(f"{out} is no folder")
    with client_of(ctx) as client:
        expires = time.time() + wait_hours * 3600
        made = create(client, count, site=site, expires=expires, life_seconds=hours * 3600, group=group)
    if out is None:
        typer.echo("".join(f"{new.secret.text()}\n" for new in made), nl=False)
        return
    paths = [write_secret(new.secret, out) for new in made]
    if output is Output.JSON:
        print_json([{"id": new.info.id, "identity": new.info.identity, "file": str(path)}
                    for new, path in zip(made, paths, strict=True)])  # fmt: skip
    elif output is Output.QUIET:
        typer.echo("".join(f"{path}\n" for path in paths), nl=False)
    else:
        typer.echo(harmless(f"{count} secret{'s' if count > 1 else ''} for {site} in {out}: give each to one pilot."))


@enrolments.command("list")
def list_enrolments(
    ctx: typer.Context,
    site: Annotated[str, typer.Option(help="Only those for this site.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 100,
    before: Annotated[int, typer.Option(min=0, help="Only those below this number: the next page.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """List enrolments, newest first."""
    from ..enrolments import listing

    with client_of(ctx) as client:
        found = listing(client, site=site, before=before, limit=limit)
    _print(found, output)


@enrolments.command("revoke")
def revoke_enrolments(
    ctx: typer.Context, whom: WhomArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Revoke enrolments: secrets that were not used enrol nobody, pilots that did are trusted no more."""
    _revoke(ctx, whom, reason, output)


@app.command("revoke")
def revoke_pilots(
    ctx: typer.Context, whom: WhomArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
) -> None:
    """Trust pilots no more: they are cut off, and what they send is refused."""
    _revoke(ctx, whom, reason, output)


@app.command()
def authority(
    name: Annotated[str, typer.Argument(metavar="DN", help="Its name, such as /DC=org/DC=vo/OU=Pilots/CN=Authority.")],
    key: Annotated[Path, typer.Option(help="New file for its key and certificate, for the service account alone.")],
    trust: Annotated[Path, typer.Option(help="Trust directory to which its certificate is added.")],
) -> None:
    """Make the authority that certifies a deployment's pilots (once, on the services' machine)."""
    from broker.identity import Authority

    if key.exists():
        raise ConfigurationError(f"{key} exists already; an authority is made once")
    if not trust.is_dir() or not os.access(trust, os.W_OK):
        raise ConfigurationError(f"{trust} is no folder that can be written")
    made = Authority.create(name, confined=True)
    made.write_trust_dir(trust)
    made.save(key)
    typer.echo(harmless(f"{made.dn} certifies pilots below {made.namespace}."))
    typer.echo(harmless(f'server.toml: [pilots] authority = "{key}". Copy {trust} to wherever it is used.'))


def _at_terminal() -> bool:
    return sys.stdout.isatty()


def _revoke(ctx: typer.Context, whom: Sequence[str], reason: str, output: Output) -> None:
    from schemas.messages.enrolment import MAX_ENROLMENTS, EnrolmentListing

    from ..enrolments import revoke

    if len(whom) > MAX_ENROLMENTS:
        raise InvalidInputError(f"more than {MAX_ENROLMENTS} in one command")
    with client_of(ctx) as client:
        found = revoke(client, whom, reason)
    known = {name for one in found for name in (one.id, one.identity)}
    missing = [name for name in whom if name not in known]
    _print(EnrolmentListing(enrolments=tuple(found)), output)
    if missing:
        raise NotFoundError(f"not enrolled here: {', '.join(missing)}")


def _print(listing: EnrolmentListing, output: Output) -> None:
    if output is Output.JSON:
        print_json(listing)
    elif output is Output.QUIET:
        typer.echo("".join(f"{one.id}\n" for one in listing.enrolments), nl=False)
    elif not listing.enrolments:
        typer.echo("No enrolments.", err=True)
    else:
        columns = [
            Column("NUMBER", right=True), Column("ID"), Column("STATE"), Column("SITE"), Column("CREATED"),
            Column("USED"), Column("LEFT"), Column("TRIED AGAIN", right=True), Column("REASON", elastic=True),
        ]  # fmt: skip
        now = time.time()
        print_table(columns, [_row(one, now) for one in listing.enrolments])
        if listing.more:
            typer.echo(f"More: pilotage pilot enrolments list --before {listing.enrolments[-1].number}", err=True)


def _row(one: EnrolmentInfo, now: float) -> list[str]:
    end = one.expires if one.state == "open" else one.ends
    left = age(end - now) if end is not None and end > now and one.state != "revoked" else "-"
    return [str(one.number), one.id, one.state, one.site, when(one.created, now), when(one.used, now), left,
            str(one.reused or "-"), one.reason]  # fmt: skip

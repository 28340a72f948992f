"""``pilotage dead``: messages that could not be handled (operators)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import InvalidInputError

from ..errors import NotFoundError
from .context import Output, OutputOption, client_of, make_app
from .ids import MAX_ID, parse_ids
from .printing import Column, harmless, print_json, print_table, when

if TYPE_CHECKING:
    from schemas.messages.service import DeadListing

app = make_app("dead", "See and deal with messages that could not be handled.")

MAX_LETTERS = 1000
"""Letters in one command (the message's bound)."""

LettersArgument = Annotated[
    list[str], typer.Argument(metavar="LETTERS", help="Numbers: 12, 12-20, '-' for standard input, @FILE.")
]


@app.command("list")
def list_letters(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 100,
    before: Annotated[int, typer.Option(min=0, help="Only those below this number: the next page.")] = 0,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were dealt with.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List dead letters, newest first."""
    with client_of(ctx) as client:
        listing = client.dead_letters(limit=limit, before=before, closed=everything)
    _print(listing, output)


@app.command()
def show(
    ctx: typer.Context,
    letter: Annotated[int, typer.Argument(metavar="LETTER", min=1, max=MAX_ID, help="Number of the letter.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one dead letter with its content."""
    with client_of(ctx) as client:
        listing = client.dead_letters([letter], body=True, closed=True)
    if not listing.letters:
        raise NotFoundError(f"there is no dead letter {letter}")
    found = listing.letters[0]
    if output is Output.JSON:
        print_json(found)
    elif output is Output.QUIET:
        typer.echo(str(found.id))
    else:
        facts = [("Letter", str(found.id)), ("State", found.state), ("Time", when(found.time, time.time())),
                 ("Queue", found.queue), ("Type", found.type), ("From", found.issuer), ("Reason", found.reason),
                 ("Size", f"{found.size} bytes")]  # fmt: skip
        for name, value in facts:
            if not value:
                continue  # garbage has no type and no sender
            typer.echo(harmless(f"{name + ':':<12}{value}"))
        if found.body is not None:
            typer.echo(harmless(found.body.decode("utf-8", "replace")))


@app.command()
def replay(ctx: typer.Context, letters: LettersArgument, output: OutputOption = Output.TABLE) -> None:
    """Admit dead letters again; their signatures are checked again, their times are not."""
    ids = _parse(letters)
    with client_of(ctx) as client:
        listing = client.replay(ids)
    _print(listing, output)


@app.command()
def discard(
    ctx: typer.Context,
    letters: LettersArgument,
    reason: Annotated[str, typer.Option(help="Why; stays with the letter.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Close dead letters for good; they stay listed with --all."""
    ids = _parse(letters)
    with client_of(ctx) as client:
        listing = client.discard(ids, reason)
    _print(listing, output)


def _parse(words: list[str]) -> list[int]:
    ids = parse_ids(words)
    if len(ids) > MAX_LETTERS:
        raise InvalidInputError(f"more than {MAX_LETTERS} letters in one command")
    return ids


def _print(listing: DeadListing, output: Output) -> None:
    if output is Output.JSON:
        print_json(listing)
    elif output is Output.QUIET:
        typer.echo("".join(f"{letter.id}\n" for letter in listing.letters), nl=False)
    elif not listing.letters:
        typer.echo("No dead letters.", err=True)
    else:
        now = time.time()
        columns = [Column("ID", right=True), Column("TIME"), Column("STATE"), Column("QUEUE"), Column("TYPE"),
                   Column("REASON", elastic=True)]  # fmt: skip
        print_table(columns, [[str(letter.id), when(letter.time, now), letter.state, letter.queue, letter.type or "-",
                               letter.reason] for letter in listing.letters])  # fmt: skip
        if listing.more:
            typer.echo(f"More: pilotage dead list --before {listing.letters[-1].id}", err=True)

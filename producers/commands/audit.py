"""``pilotage audit``: what was decided about security, and the proof that nobody changed it since."""

from __future__ import annotations

import datetime as dt
import os
import re
from contextlib import ExitStack
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from schemas.errors import InvalidInputError

from .audit_printing import print_check, print_entries, print_lines, print_trace
from .context import Output, OutputOption, client_of, make_app
from .exit_codes import ExitCode
from .printing import print_json
from .progress import progress_bar

app = make_app("audit", "See the audit, and verify that nobody changed it.")

MAX_ENTRIES = 10_000_000
"""Entries of one list: nobody reads more, and a script pages."""

DASHED_THUMBPRINT = re.compile(r"-[A-Za-z0-9_-]{42}")
"""One of 64 thumbprints (SHA-256 in base64url) looks like an option."""

HEAD = re.compile(r"(?:([0-9]{1,16}):)?([0-9a-f]{64})")


class ListOutput(StrEnum):
    """How entries are printed."""

    TABLE = "table"
    JSON = "json"
    QUIET = "quiet"
    LINES = "lines"


@app.command("list")
def list_entries(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="Not before: 1h, 2d (ago), or 2026-11-30T12:00.")] = "",
    until: Annotated[str, typer.Option(help="Before that time.")] = "",
    event: Annotated[str, typer.Option(help="What happened; 'proxy.*' for all that begin so.")] = "",
    identity: Annotated[str, typer.Option(help="Whose doing: a DN.")] = "",
    client: Annotated[str, typer.Option(help="By which client.")] = "",
    job: Annotated[int, typer.Option(min=0, max=2**53, help="About which job.")] = 0,
    text: Annotated[str, typer.Option(help="Somewhere in the detail.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=MAX_ENTRIES, help="At most so many, newest first.")] = 100,
    before: Annotated[int, typer.Option(min=0, max=2**53, help="Only those with smaller numbers: the next page.")] = 0,
    output: Annotated[
        ListOutput, typer.Option("--output", "-o", help="For people, for programs, numbers only, or one JSON a line.")
    ] = ListOutput.TABLE,
) -> None:
    """List what was decided, newest first; all that is given must hold."""
    from schemas.messages.audit import QueryAudit

    query = QueryAudit(
        since=_moment(since), until=_moment(until), event=event, identity=_dn(identity), client=client, job=job,
        text=text, before=before,
    )  # fmt: skip
    with client_of(ctx) as wire, progress_bar("audit", shown=output is ListOutput.TABLE) as told:
        found = wire.audit.entries(query, limit, told)
        if output is ListOutput.LINES:
            for entry in found:
                print_lines([entry])
            return
        entries = list(found)
    if output is ListOutput.JSON:
        print_json({"entries": entries})
    elif output is ListOutput.QUIET:
        typer.echo("".join(f"{entry.id}\n" for entry in entries), nl=False)
    else:
        print_entries(entries)
        if len(entries) == limit:
            typer.echo(f"More: the same with --before {entries[-1].id}", err=True)


@app.command()
def verify(
    ctx: typer.Context,
    start: Annotated[int, typer.Option("--from", min=1, max=2**53, help="First place to check.")] = 1,
    expect_head: Annotated[
        list[str] | None,
        typer.Option(metavar="[PLACE:]HASH", help="A head noted elsewhere that must be in the chain; may be repeated."),
    ] = None,
    stream: Annotated[
        bool, typer.Option(help="Compare with the heads that the monitoring stream tells of, too.")
    ] = True,
    archive: Annotated[
        list[Path] | None,
        typer.Option(help="A copy of 'audit export': checked first, then what came since; several in order."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify the audit's chain: every hash and every seal, computed here.

    Ends with 1 if anything is wrong.
    """
    heads = dict(_head(text) for text in expect_head or ())
    with client_of(ctx) as wire, progress_bar("places", shown=output is Output.TABLE) as told:
        witnesses = wire.audit.told_heads() if stream else {}
        if archive:
            with ExitStack() as files:
                copy = wire.audit.verify_archive(
                    chain.from_iterable(files.enter_context(path.open("rb")) for path in archive)
                )
            heads |= {copy.head: copy.last} if copy.last else {}
            # What stands before the copy is not checked by it.
            begin = max(1, copy.last) if copy.start == 1 else 1
            rest = wire.audit.verify(start=begin, heads={**witnesses, **heads}, told=told)
            result = copy.joined(rest)
        else:
            result = wire.audit.verify(start=start, heads={**witnesses, **heads}, told=told)
    print_check(result, len(witnesses), stream, output)
    if result.problems:
        raise typer.Exit(ExitCode.NO)


@app.command()
def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="New file; only you may read it.")],
    start: Annotated[
        int, typer.Option("--from", min=1, max=2**53, help="First place: one more than the last of an earlier copy.")
    ] = 1,
    output: OutputOption = Output.TABLE,
) -> None:
    """Copy the audit's chain into a file, entries and seals, and verify it on the way.

    Ends with 1 if anything is wrong with the chain; the copy has it as it is.
    """
    with client_of(ctx) as wire, progress_bar("places", shown=output is Output.TABLE) as told:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            result = wire.audit.archive(stream.write, start=start, told=told)
    print_check(result, 0, False, output)
    if result.problems:
        raise typer.Exit(ExitCode.NO)


class TakesThumbprints(TyperCommand):
    """A command one of whose arguments may be a thumbprint that begins with a dash, which is no option then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # (typer keeps the type of ctx to itself)
        """Put such arguments last, behind ``--``."""
        dashed = [argument for argument in args if DASHED_THUMBPRINT.fullmatch(argument)]
        if dashed and "--" not in args:
            args = [*(argument for argument in args if argument not in dashed), "--", *dashed]
        return super().parse_args(ctx, args)


@app.command(cls=TakesThumbprints)
def trace(
    ctx: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="WHO", help="A DN, a client id, or a certificate's thumbprint or serial number.")
    ],
    since: Annotated[str, typer.Option(help="Not before: 1h, 2d (ago), or 2026-11-30T12:00.")] = "",
    until: Annotated[str, typer.Option(help="Before that time.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show everything that a credential did, and where its proxies are.

    For incidents: logins, submissions, commands on jobs, proxies that were delegated, and which pilots got some of
    them, until when.
    """
    from ..tracing import trace as search

    with client_of(ctx) as wire, progress_bar("audit", shown=output is Output.TABLE) as told:
        found = search(wire.audit, subject, since=_moment(since), until=_moment(until), told=told)
    if output is Output.JSON:
        print_json(found)
    elif output is Output.QUIET:
        typer.echo("".join(f"{step.entry}\n" for step in found.steps if step.entry), nl=False)
    else:
        print_trace(found)


def _moment(text: str) -> float:
    """Seconds since the epoch; 0 if nothing is given."""
    from ..watching import parse_since

    if not text or text == "first":
        return 0.0
    moment = parse_since(text, dt.datetime.now(dt.UTC))
    if isinstance(moment, str):
        raise InvalidInputError(f"{text!r} is no time here")
    return moment.timestamp()


def _dn(text: str) -> str:
    from schemas.identity import canonical_dn

    return canonical_dn(text) if text else ""


def _head(text: str) -> tuple[str, int]:
    found = HEAD.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInputError(
            f"{text[:80]!r} is no head: give 64 hexadecimal digits, with PLACE: before them if known"
        )
    return found[2], int(found[1] or 0)

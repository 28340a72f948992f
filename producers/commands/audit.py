"""``pilotage audit``: what was decided about security, and the proof that nobody changed it since."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from schemas.errors import InvalidInputError

from .context import Output, OutputOption, client_of, make_app
from .exit_codes import ExitCode
from .printing import Column, harmless, print_json, print_table, when
from .progress import progress_bar

if TYPE_CHECKING:
    from schemas.audit_check import ChainCheck
    from schemas.messages.audit import AuditEntry

app = make_app("audit", "See the audit, and verify that nobody changed it.")

MAX_ENTRIES = 10_000_000
"""Entries of one list: nobody reads more, and a script pages."""

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
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify the audit's chain: every hash and every seal, computed here.

    Ends with 1 if anything is wrong.
    """
    heads = dict(_head(text) for text in expect_head or ())
    with client_of(ctx) as wire, progress_bar("places", shown=output is Output.TABLE) as told:
        witnesses = wire.audit.told_heads() if stream else {}
        result = wire.audit.verify(start=start, heads={**witnesses, **heads}, told=told)
    _print_check(result, len(witnesses), stream, output)
    if result.problems:
        raise typer.Exit(ExitCode.NO)


def _print_check(result: ChainCheck, witnesses: int, stream: bool, output: Output) -> None:
    problems = sorted(result.problems, key=lambda problem: problem.place or 2**63)
    if output is Output.JSON:
        document = {
            "ok": not problems, "checked": result.checked, "seals": result.seals, "last": result.last,
            "head": result.head, "waiting": result.waiting, "witnesses": witnesses,
            "problems": [
                {"kind": one.kind.value, "place": one.place, "entry": one.id, "text": one.text} for one in problems
            ],
        }  # fmt: skip
        print_json(document)
        return
    if output is Output.QUIET:
        typer.echo(f"{result.last}:{result.head}")
        return
    for problem in problems:
        place = f"place {problem.place}: " if problem.place else ""
        typer.echo(harmless(f"{place}{problem.kind}: {problem.text}"))
    typer.echo(f"{result.checked} entries and {result.seals} seals checked.")
    if result.waiting:
        typer.echo(f"{result.waiting} more entries wait for their seal.")
    if problems:
        typer.echo(f"The audit was tampered with, or is damaged: {len(problems)} finding(s), the first one "
                   f"{f'at place {problems[0].place}' if problems[0].place else 'at its end'}.", err=True)  # fmt: skip
        return
    if stream and not witnesses:
        typer.echo("The monitoring stream tells of no head of late: compare with one noted elsewhere.", err=True)
    typer.echo(f"The chain is whole up to {result.last}:{result.head}" if result.last else "The chain is empty.")


def print_lines(entries: Sequence[AuditEntry]) -> None:
    """One JSON object a line (docs/reference/audit.md)."""
    from schemas.audit import to_line

    typer.echo("".join(to_line(entry) + "\n" for entry in entries), nl=False)


def print_entries(entries: Sequence[AuditEntry]) -> None:
    """A table of entries."""
    if not entries:
        typer.echo("No entries.", err=True)
        return
    now = time.time()
    columns = [Column("ID", right=True), Column("PLACE", right=True), Column("TIME"), Column("EVENT"),
               Column("WHO", elastic=True), Column("DETAIL", elastic=True)]  # fmt: skip
    rows = [[str(one.id), str(one.place) if one.place else "-", when(one.time, now), one.event,
             name_of(one.identity) or one.client or "-", facts_of(one.detail)] for one in entries]  # fmt: skip
    print_table(columns, rows)


def name_of(identity: str) -> str:
    """The part of a DN that people know somebody by."""
    return identity.rpartition("/CN=")[2] or identity


def facts_of(detail: str) -> str:
    """Facts in one line, for people."""
    try:
        facts = msgspec.json.decode(detail)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return detail
    if not isinstance(facts, Mapping):
        return detail
    return " ".join(f"{key}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
                    for key, value in facts.items())  # fmt: skip


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

"""How ``pilotage audit`` prints: entries, what a check found, the time line of a credential."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from .context import Output
from .printing import Column, age, harmless, print_json, print_table, when

if TYPE_CHECKING:
    from schemas.audit_check import ChainCheck
    from schemas.messages.audit import AuditEntry

    from ..tracing import Issued, Trace


def print_check(result: ChainCheck, witnesses: int, stream: bool, output: Output) -> None:
    """What a check found."""
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
    typer.echo(f"The chain is whole up to {result.last}:{result.head}" if result.last else "Nothing is sealed there.")


def print_trace(found: Trace) -> None:
    """Who it is, the time line, and where his proxies are."""
    now = time.time()
    typer.echo(harmless(f"Identity:  {found.identity}"))
    if found.clients:
        more = f" and {len(found.clients) - 10} more" if len(found.clients) > 10 else ""
        typer.echo(harmless(f"Clients:   {', '.join(sorted(found.clients)[:10])}{more}"))
    for proxy in found.trail.proxies:
        typer.echo(harmless(f"Kept:      a proxy of group {proxy.group}, {_left(proxy.not_after, now)}"))
    typer.echo("")
    columns = [Column("TIME"), Column("WHAT"), Column("CLIENT", elastic=True), Column("DETAIL", elastic=True)]
    rows = [[when(step.time, now), step.what, step.client or "-", _shown(step.detail)] for step in found.steps]
    print_table(columns, rows)
    _print_issued("Proxies of theirs that pilots got", found.given, now)
    _print_issued("Proxies of others that their pilots got", found.got, now)
    if found.more:
        typer.echo("There is more than could be shown: narrow it with --since and --until.", err=True)


def _print_issued(title: str, some: Sequence[Issued], now: float) -> None:
    if not some:
        return
    usable = sum(one.until > now for one in some)
    typer.echo(f"\n{title}: {len(some)}, of which {usable} can still be used.")
    columns = [Column("LEFT"), Column("UNTIL"), Column("PILOT", elastic=True), Column("SITE", elastic=True),
               Column("JOB", right=True), Column("OWNER", elastic=True), Column("SERIAL", elastic=True)]  # fmt: skip
    rows = [[_left(one.until, now), f"{when(one.until, now).partition(' (')[0]}", one.pilot, one.site or "-",
             str(one.job), name_of(one.owner), one.serial] for one in some]  # fmt: skip
    print_table(columns, rows)


def _left(until: float, now: float) -> str:
    return f"{age(until - now)} left" if until > now else "ended"


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
    return _shown(facts)


def _shown(facts: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
                    for key, value in facts.items())  # fmt: skip

"""``pilotage watch``: the monitoring stream, live or from a point in the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from schemas.messages.audit import AuditSealed
from schemas.messages.enrolment import PilotEnrolling
from schemas.messages.event import JobsChanged, JobsReceived, MessageRefused, PilotChanged, ProxyWanted, WorkWaiting
from schemas.messages.registrar import IdentityBlocked, RegistryChanged, RegistryStale

from .context import Output, OutputOption, client_of
from .printing import both, clock, harmless, paint, print_json_line
from .proxy_facts import in_words

if TYPE_CHECKING:
    from ..watching import Event

NAMED = 3
"""Entries that one line names."""

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def watch(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="first, next, 10m, 1h, 2d (ago), or 2026-11-30T12:00.")] = "next",
    until_now: Annotated[bool, typer.Option("--until-now", help="End when what there is has been shown.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Watch everything that happens; Ctrl-C ends it."""
    try:
        for event in client_of(ctx).watch(since, stop=lambda: until_now):
            _print_event(event, output)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # the usual way to leave


def _print_event(event: Event, output: Output) -> None:
    message = event.message
    if output is Output.JSON:
        print_json_line(
            {"offset": event.offset, "time": event.time, "type": event.type, "source": event.source, "data": message}
        )
    elif output is Output.QUIET:
        if isinstance(message, JobsChanged):
            typer.echo("\n".join(str(change.job) for change in message.changes))
    else:
        for line in _lines(event):
            typer.echo(line)


def _lines(event: Event) -> list[str]:
    message, time = event.message, clock(event.time)
    if isinstance(message, JobsChanged):
        return [
            f"{clock(c.time)}  job {c.job}  {paint(c.status)}"
            + harmless("".join(f"  {part}" for part in (c.site and f"at {c.site}", both(c.minor, c.cause)) if part))
            for c in message.changes
        ]
    if isinstance(message, AuditSealed | WorkWaiting | JobsReceived | ProxyWanted):
        return []  # witnesses and hints for machines: --output json shows them; jobs' own lines tell the same
    if isinstance(message, PilotChanged):
        text = f"pilot {message.client}  {message.status}  {message.site}  {message.cause}"
    elif isinstance(message, PilotEnrolling):
        text = f"pilot {message.client}  enrols  {message.site}  as {message.identity}"
    elif isinstance(message, MessageRefused):
        sender = message.issuer or message.client or "somebody"
        text = f"refused {message.type or 'a message'} of {sender}: {message.reason}"
    elif isinstance(message, RegistryChanged):
        named = ", ".join(message.names[:NAMED]) + (", …" if len(message.names) > NAMED else "")
        why = f": {message.reason}" if message.reason else ""
        text = f"registry: {message.kind} {named} by {message.actor}{why}"
    elif isinstance(message, IdentityBlocked):
        where = f" {message.group}" if message.group else ""
        why = f": {message.reason}" if message.reason else ""
        text = f"blocked: {message.identity} {message.how}{where} by {message.by}{why}"
    elif isinstance(message, RegistryStale):
        text = f"source {message.source}: {message.reason}"
    else:
        text = in_words(message) or f"{event.source}  {event.type}"
    return [f"{time}  {harmless(text)}"]

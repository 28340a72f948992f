"""``pilotage submit``: check job descriptions, send them, optionally wait for their end.

``--check`` needs no configuration, no proxy and no network; it imports nothing of the broker's. ``--dry-run`` asks the
services what would become of the jobs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import Fault, InvalidJobError
from .context import Output, OutputOption, client_of
from .exit_codes import ExitCode
from .printing import print_fault, print_json
from .transfers import transfer_bar

if TYPE_CHECKING:
    from schemas.jdl import CheckedSubmission

    from ..client import Submission
    from ..submission import Description

MAX_PROXY_HOURS = 7 * 24.0
"""As in producers.delegation, which brings more than help texts need."""

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def submit(
    ctx: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Job descriptions (JDL); '-' reads one.")],
    check: Annotated[bool, typer.Option("--check", help="Only check: send nothing.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Submit nothing: ask where the jobs would run now, and what would hold them."),
    ] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same submission twice is one.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all jobs have ended.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most.")] = None,
    proxy_hours: Annotated[
        float | None,
        typer.Option(min=0.25, max=MAX_PROXY_HOURS, help="Delegate a proxy of so many hours for these jobs alone."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Submit jobs."""
    descriptions = [_read(name) for name in files]
    if check:
        raise typer.Exit(_check(descriptions, output))
    if dry_run:
        raise typer.Exit(_weigh(ctx, descriptions, output))
    from ..client import fresh_key
    from ..submission import prepare

    try:
        prepared = prepare(descriptions, fresh_key(key))
        with client_of(ctx) as client:
            with transfer_bar(output) as progress:
                submission = client.submit_prepared(prepared, progress, proxy_hours)
            _show(submission, output, waits=wait)
            if wait:
                from .waiting import wait_for

                raise typer.Exit(wait_for(client, submission.ids, timeout, output))
    except InvalidJobError as error:
        if not error.faults or output is Output.JSON:
            raise
        _print_faults(error.faults, descriptions)
        raise typer.Exit(ExitCode.USAGE) from None


def _weigh(ctx: typer.Context, descriptions: Sequence[Description], output: Output) -> ExitCode:
    """``--dry-run``: 0 if every job would find a pilot sooner or later as things stand, 1 if some would not."""
    from .why_printing import print_weighed, would_run

    try:
        with client_of(ctx) as client:
            weighed = client.why.weigh(descriptions)
    except InvalidJobError as error:
        if not error.faults or output is Output.JSON:
            raise
        _print_faults(error.faults, descriptions)
        return ExitCode.USAGE
    if output is Output.JSON:
        print_json(weighed)
    else:
        print_weighed(weighed, brief=output is Output.QUIET)
    return ExitCode.OK if would_run(weighed) else ExitCode.NO


def _read(name: str) -> Description:
    from schemas.jdl import MAX_JDL_BYTES

    from ..submission import Description, read_description

    if name == "-":
        return Description(sys.stdin.buffer.read(MAX_JDL_BYTES + 1), Path(), "<stdin>")
    return read_description(Path(name))


def _check(descriptions: Sequence[Description], output: Output) -> ExitCode:
    from schemas.jdl import check

    results = [check(description.text) for description in descriptions]
    bad = any(result.errors for result in results)
    if output is Output.JSON:
        print_json(_as_json(descriptions, results))
    else:
        _print_checked(descriptions, results, output)
    return ExitCode.USAGE if bad else ExitCode.OK


def _as_json(descriptions: Sequence[Description], results: Sequence[CheckedSubmission]) -> dict[str, object]:
    """``{jobs, errors}``; with several files each error also names its ``file``."""
    outputs = [result.as_output() for result in results]
    errors: list[dict[str, object]] = []
    for description, result in zip(descriptions, results, strict=True):
        for error in result.errors:
            entry: dict[str, object] = {
                "line": error.line,
                "column": error.column,
                "attribute": error.attribute,
                "message": error.message,
            }
            errors.append(entry | {"file": description.name} if len(descriptions) > 1 else entry)
    jobs = [job for found in outputs if isinstance(found["jobs"], list) for job in found["jobs"]]
    return {"jobs": jobs, "errors": errors}


def _print_checked(descriptions: Sequence[Description], results: Sequence[CheckedSubmission], output: Output) -> None:
    from ..submission import local_faults

    errors = warnings = 0
    for number, (description, result) in enumerate(zip(descriptions, results, strict=True)):
        text = _text(description)
        for error in result.errors:
            print_fault(_fault(error.line, error.column, error.message), description.name, text)
        notes = [_fault(w.line, w.column, w.message) for w in result.warnings]
        notes += local_faults(description, number, result)
        for note in notes if output is Output.TABLE else ():
            print_fault(note, description.name, text, kind="warning")
        errors, warnings = errors + len(result.errors), warnings + len(notes)
    if output is Output.TABLE:
        jobs = sum(len(result.jobs) for result in results)
        typer.echo(f"{_count(jobs, 'job')}, {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _fault(line: int, column: int, message: str) -> Fault:
    return Fault(message, line, column)


def _print_faults(faults: Sequence[Fault], descriptions: Sequence[Description]) -> None:
    for fault in faults:
        known = 0 <= fault.source < len(descriptions)
        description = descriptions[fault.source] if known else None
        print_fault(fault, description.name if description else "", _text(description) if description else None)
    typer.echo(f"{_count(len(faults), 'error')}; nothing was submitted", err=True)


def _text(description: Description) -> str:
    text = description.text
    return text if isinstance(text, str) else text.decode("utf-8", "replace").removeprefix("\ufeff")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _show(submission: Submission, output: Output, *, waits: bool) -> None:
    if output is Output.JSON:
        if not waits:
            print_json({"first": submission.first, "count": submission.count, "key": submission.key})
    elif output is Output.QUIET:
        typer.echo("\n".join(map(str, submission.ids)))
    else:
        last = submission.first + submission.count - 1
        ids = f"Job {submission.first}" if submission.count == 1 else f"Jobs {submission.first}-{last}"
        typer.echo(f"{ids} submitted")
        for warning in submission.warnings:
            typer.echo(f"warning: {warning.message}", err=True)
        if not waits:
            span = str(submission.first) if submission.count == 1 else f"{submission.first}-{last}"
            typer.echo(f"Next: pilotage job wait {span}; pilotage job output {span}")

"""``pilotage job``: see and steer jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import InvalidInputError
from schemas.job import FINAL, JobStatus

from ..errors import NotFoundError
from .context import Output, OutputOption, client_of, make_app
from .exit_codes import ExitCode
from .ids import MAX_ID, IdsArgument, parse_ids
from .printing import Column, age, both, clock, harmless, paint, print_json, print_table, when

if TYPE_CHECKING:
    from schemas.messages.service import CommandOutcome, JobDetail, JobSummary

app = make_app("job", "See and steer jobs.")

JobArgument = Annotated[int, typer.Argument(metavar="JOB", min=1, max=MAX_ID, help="Job id.")]


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    status: Annotated[list[str] | None, typer.Option(help="Only these (comma or repeated): Running, Failed…")] = None,
    site: Annotated[str, typer.Option(help="Only jobs at this site.")] = "",
    group: Annotated[str, typer.Option(help="Only jobs of this JobGroup.")] = "",
    owner: Annotated[str, typer.Option(help="Jobs of this DN instead of your own.")] = "",
    everybody: Annotated[bool, typer.Option("--all", help="All jobs that you may see.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")] = 25,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs, newest first."""
    statuses = parse_statuses(status or ())
    with client_of(ctx) as client:
        jobs = client.jobs(status=statuses, site=site, job_group=group, owner="*" if everybody else owner, limit=limit)
    if output is Output.JSON:
        print_json({"jobs": jobs})
    elif output is Output.QUIET:
        _print_ids([job.job for job in jobs])
    else:
        _print_list(jobs, with_owner=everybody or bool(owner))


def parse_statuses(words: Sequence[str]) -> tuple[JobStatus, ...]:
    """Statuses in any case, separated by commas or repeated.

    Raises:
        InvalidInputError: there is no such status.
    """
    known = {status.lower(): status for status in JobStatus}
    found = []
    for word in ",".join(words).split(","):
        if word.strip():
            status = known.get(word.strip().lower())
            if status is None:
                raise InvalidInputError(f"there is no status {word.strip()!r}; known are {', '.join(JobStatus)}")
            found.append(status)
    return tuple(found)


def _print_ids(ids: Sequence[int]) -> None:
    if ids:
        typer.echo("\n".join(map(str, ids)))


def _print_list(jobs: Sequence[JobSummary], *, with_owner: bool) -> None:
    if not jobs:
        typer.echo("No jobs.", err=True)
        return
    now = time.time()
    columns = [Column("JOB", right=True), Column("STATUS"), Column("NAME", elastic=True), Column("SITE", elastic=True),
               Column("UPDATED"), Column("CPU", right=True), Column("EXIT", right=True)]  # fmt: skip
    rows = [
        [
            str(job.job),
            job.status,
            job.name or "-",
            job.site or "-",
            when(job.updated, now),
            age(job.usage.cpu_seconds) if job.started is not None else "-",
            "-" if job.exit_code is None else str(job.exit_code),
        ]
        for job in jobs
    ]
    if with_owner:
        columns.insert(2, Column("OWNER", elastic=True))
        for row, job in zip(rows, jobs, strict=True):
            row.insert(2, short_name(job.owner))
    print_table(columns, rows)


def short_name(dn: str) -> str:
    """The last CN of a DN, for narrow tables."""
    return dn.rpartition("/CN=")[2] or dn


@app.command()
def show(ctx: typer.Context, job: JobArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything about one job."""
    with client_of(ctx) as client:
        detail = client.job(job)
    if output is Output.JSON:
        print_json(detail)
    elif output is Output.QUIET:
        typer.echo(detail.summary.status)
    else:
        _print_detail(detail)


def _print_detail(detail: JobDetail) -> None:
    import msgspec

    job, now = detail.summary, time.time()
    facts = [
        ("Job", str(job.job)), ("Status", f"{paint(job.status)}{f' ({job.minor})' if job.minor else ''}"),
        ("Name", job.name), ("Group", job.job_group), ("Type", job.job_type),
        ("Owner", f"{job.owner} ({job.group})"), ("Site", job.site), ("Pilot", job.pilot),
        ("Attempt", str(job.attempt) if job.attempt else ""), ("Submitted", when(job.submitted, now)),
        ("Started", when(job.started, now)), ("Ended", when(job.ended, now)),
        ("Heartbeat", when(job.heartbeat, now)),
        ("Exit code", "" if job.exit_code is None else str(job.exit_code)),
        ("Usage", _usage(job) if job.started is not None else ""),
    ]  # fmt: skip
    for name, value in facts:
        if value:
            typer.echo(f"{name + ':':<12}{value if name == 'Status' else harmless(value)}")
    for attempt in detail.attempts:
        end = attempt.outcome or "running"
        why = f": {attempt.reason}" if attempt.reason else ""
        typer.echo(harmless(f"Attempt {attempt.attempt}: {end} at {attempt.site or '?'}{why}"))
    if detail.outputs:
        names = ", ".join(f"{file.name} ({file.size} bytes)" for file in detail.outputs)
        typer.echo(f"{'Output:':<12}{harmless(names)}")
    description: object = msgspec.json.decode(detail.description)
    if isinstance(description, dict) and description:
        typer.echo("Description:")
        for name, value in description.items():
            typer.echo(harmless(f"  {name} = {msgspec.json.encode(value).decode()}"))


def _usage(job: JobSummary) -> str:
    usage = job.usage
    times = f"{usage.cpu_seconds:.1f} s CPU in {usage.wall_seconds:.1f} s"
    return f"{times}, {usage.memory_mb:.0f} MB, {usage.processors} core{'' if usage.processors == 1 else 's'}"


@app.command()
def history(ctx: typer.Context, job: JobArgument, output: OutputOption = Output.TABLE) -> None:
    """Show what happened to a job, when and why."""
    with client_of(ctx) as client:
        detail = client.job(job)
    if output is Output.JSON:
        print_json({"job": job, "history": detail.history})
    elif output is Output.QUIET:
        typer.echo("\n".join(line.status for line in detail.history))
    else:
        columns = [Column("TIME"), Column("STATUS"), Column("TRY", right=True), Column("BY", elastic=True),
                   Column("WHY", elastic=True)]  # fmt: skip
        print_table(
            columns,
            [
                [clock(line.time), line.status, str(line.attempt or "-"), line.source, both(line.minor, line.cause)]
                for line in detail.history
            ],
        )


@app.command()
def explain(ctx: typer.Context, job: JobArgument, output: OutputOption = Output.TABLE) -> None:
    """Explain why a job waits: what keeps it from pilots, what holds it, what goes first.

    Everything is told of the present moment, by the code that matches jobs with pilots. --output quiet prints one
    sentence.
    """
    from .why_printing import print_explained

    with client_of(ctx) as client:
        explained = client.why.job(job)
    if output is Output.JSON:
        print_json(explained)
    elif output is Output.QUIET:
        typer.echo(harmless(explained.verdict))
    else:
        print_explained(explained)


@app.command("output")
def fetch(
    ctx: typer.Context,
    jobs: IdsArgument,
    folder: Annotated[Path, typer.Option("--dir", "-d", help="Files go to DIR/JOB/….")] = Path(),
    output: OutputOption = Output.TABLE,
) -> None:
    """Fetch the output sandboxes of jobs."""
    from .transfers import transfer_bar

    written: dict[str, list[str]] = {}
    ids = parse_ids(jobs)
    with client_of(ctx) as client:
        for job in ids:
            detail = client.job(job)
            with transfer_bar(output) as progress:
                paths = client.output(detail, folder, progress=progress)
            written[str(job)] = [str(path) for path in paths]
            if output is Output.QUIET:
                typer.echo("".join(f"{path}\n" for path in paths), nl=False)
            elif output is Output.TABLE:
                files = f"{len(paths)} file{'' if len(paths) == 1 else 's'} in {folder / str(job)}"
                typer.echo(f"Job {job}: {files if paths else _why_none(detail)}")
    if output is Output.JSON:
        print_json({"files": written})
    if not all(written.values()):
        raise typer.Exit(ExitCode.NO)


def _why_none(detail: JobDetail) -> str:
    status = detail.summary.status
    return f"no output ({status})" if status in FINAL else f"no output yet ({status})"


@app.command()
def wait(
    ctx: typer.Context,
    jobs: IdsArgument,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Wait until jobs have ended; 0 if all are Done, 1 if not, 3 if the time runs out."""
    from .waiting import wait_for

    ids = parse_ids(jobs)
    with client_of(ctx) as client:
        code = wait_for(client, ids, timeout, output)
    raise typer.Exit(code)


@app.command()
def kill(ctx: typer.Context, jobs: IdsArgument, output: OutputOption = Output.TABLE) -> None:
    """Stop jobs wherever they are."""
    ids = parse_ids(jobs)
    with client_of(ctx) as client:
        outcomes = client.kill(ids)
    _report(outcomes, "killed", output)


@app.command()
def delete(ctx: typer.Context, jobs: IdsArgument, output: OutputOption = Output.TABLE) -> None:
    """Forget jobs; those that still live are killed first."""
    ids = parse_ids(jobs)
    with client_of(ctx) as client:
        outcomes = client.delete(ids)
    _report(outcomes, "deleted", output)


@app.command()
def reschedule(ctx: typer.Context, jobs: IdsArgument, output: OutputOption = Output.TABLE) -> None:
    """Run ended jobs again."""
    ids = parse_ids(jobs)
    with client_of(ctx) as client:
        outcomes = client.reschedule(ids)
    _report(outcomes, "rescheduled", output)


def _report(outcomes: Sequence[CommandOutcome], done: str, output: Output) -> None:
    if output is Output.JSON:
        print_json({"outcomes": outcomes})
    elif output is Output.QUIET:
        _print_ids([outcome.job for outcome in outcomes if outcome.ok])
    else:
        for outcome in outcomes:
            typer.echo(harmless(_outcome_line(outcome, done)))
    if not outcomes:
        raise NotFoundError("none of these jobs exists, or they are not yours")
    if not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(ExitCode.NO)


def _outcome_line(outcome: CommandOutcome, done: str) -> str:
    now = f" ({outcome.status})" if outcome.status is not None else ""
    if outcome.ok and outcome.reason:
        return f"Job {outcome.job}: {outcome.reason}{now}"
    why = f": {outcome.reason}" if outcome.reason else ""
    return f"Job {outcome.job} {'' if outcome.ok else 'not '}{done}{now}{why}"

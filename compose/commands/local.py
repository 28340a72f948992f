"""``pilotage up | down | status | demo``: the private stack on this machine.

Everything heavy is imported inside the functions, so that ``--help`` stays fast.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from producers.commands.context import Output
from producers.commands.exit_codes import ExitCode

from ..settings import data_home

if TYPE_CHECKING:
    from ..local.stack import Stack

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

SHOWN_LINES = 10
"""Of a log, when something did not come up: the reason stands at its end."""

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where everything lies; by default below the XDG data home.")
]


@app.command()
def up(
    data_dir: DataDir = None,
    pilots: Annotated[int | None, typer.Option(min=0, max=64, help="How many pilots; 2, or as the last time.")] = None,
    slots: Annotated[
        int | None, typer.Option(min=0, max=1024, help="Processors that each offers; 0: they share all.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="sqlite (the default), postgres (a private cluster), or a PostgreSQL URL.")
    ] = None,
) -> None:
    """Start the private stack on this machine."""
    from ..local.ending import ends_in_order

    stack = _stack(data_dir)
    with ends_in_order(), _failures_shown():
        started = stack.up(_say, pilots=pilots, slots=slots, store=store)
    if not started:
        _say(f"Already up, in {stack.layout.root}")
        return
    _say(f"Up, in {stack.layout.root}")
    _print_next(stack, default=data_dir is None)


@app.command()
def down(
    data_dir: DataDir = None,
    purge: Annotated[bool, typer.Option("--purge", help="Also remove the data: jobs, identities, everything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
) -> None:
    """Stop the private stack."""
    from ..local.ending import ends_in_order

    stack = _stack(data_dir)
    root = stack.layout.root
    if purge and root.exists() and not yes:
        if not sys.stdin.isatty():
            typer.echo("error: there is no terminal to ask at; say --yes to remove the data", err=True)
            raise typer.Exit(ExitCode.USAGE)
        typer.confirm(f"Remove {root} with all jobs and identities in it?", abort=True)
    with ends_in_order():
        ran = stack.down(_say)
        if purge:
            stack.purge(_say)
    _say("Down" if ran else "It was not up")
    if purge:
        _say(f"Removed {root}")


@app.command()
def status(
    data_dir: DataDir = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="For people, for programs, or nothing.")
    ] = Output.TABLE,
) -> None:
    """Show how the private stack is; ends with 0 if all of it is up, with 1 if not."""
    from ..local.status import describe, print_status

    found = describe(_stack(data_dir))
    if output is Output.JSON:
        from producers.commands.printing import print_json

        print_json(found)
    elif output is Output.TABLE:
        print_status(found)
    raise typer.Exit(ExitCode.OK if found.up else ExitCode.NO)


@app.command()
def demo() -> None:
    """Run the demonstration in a stack of its own."""
    from ..local.demo import run
    from ..local.ending import ends_in_order

    with ends_in_order(), _failures_shown():
        raise typer.Exit(ExitCode.OK if run() else ExitCode.NO)


def _stack(data_dir: Path | None) -> Stack:
    import os

    from ..local.stack import Stack

    return Stack(data_dir or data_home(os.environ) / "local")


@contextmanager
def _failures_shown() -> Iterator[None]:
    """A process that did not come up: what failed, then the lines of its log that tell why."""
    from producers.commands.printing import harmless

    from ..local.processes import ProcessFailedError

    try:
        yield
    except ProcessFailedError as error:
        first, *log = str(error).splitlines()
        telling = [line for line in log if '"level": "info"' not in line and "[info " not in line]
        for line in [f"error: {first}", *(f"  {line}" for line in (telling or log)[-SHOWN_LINES:])]:
            typer.echo(harmless(line), err=True)
        raise typer.Exit(ExitCode.NO) from None


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _print_next(stack: Stack, *, default: bool) -> None:
    """What to type next, so that it works where the user stands."""
    from ..local.examples import shown_example

    command = _command()
    if not default:
        _say(f"\nFor this data directory:\n  export PILOTAGE_CONFIG={shlex.quote(str(stack.layout.client_config))}")
    place = "" if default else f" --data-dir {shlex.quote(str(stack.layout.root))}"
    _say(
        f"\nNext:\n"
        f"  {command} proxy init\n"
        f"  {command} submit {shown_example('hello.jdl')}\n"
        f"  {command} job list\n"
        f"  {command} down{place}"
    )


def _command() -> str:
    """How the user can call us: the plain word if the shell finds it, else as it was typed."""
    typed = Path(sys.argv[0])
    found = shutil.which("pilotage")
    if typed.name != "pilotage" or (found and Path(found).resolve() == typed.resolve()):
        return "pilotage"
    return shlex.quote(str(typed))

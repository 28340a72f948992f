"""The ``pilotage`` script: finds the command that was named, imports it alone, and turns errors into one line.

Promises: ``--help`` and ``--version`` import no command; a command imports only its own module; nobody ever sees a
traceback (``PILOTAGE_DEBUG=1`` shows it). The table of help lines stands here so that help needs no imports; a test
compares it with the commands' own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producers.settings import UserSettings

PROGRAM = "pilotage"


@dataclass(frozen=True, slots=True)
class Mount:
    """One command of the script.

    Attributes:
        name: the word on the command line.
        module: where its typer application ``app`` lives.
        summary: first line of its help.
        member: the command inside the application, where several words share one module.
    """

    name: str
    module: str
    summary: str
    member: str = ""


_LOCAL = "compose.commands.local"
MOUNTS: tuple[Mount, ...] = (
    Mount("up", _LOCAL, "Start the private stack on this machine.", "up"),
    Mount("down", _LOCAL, "Stop the private stack.", "down"),
    Mount("status", _LOCAL, "Show how the private stack is.", "status"),
    Mount("demo", _LOCAL, "Run the demonstration in a stack of its own.", "demo"),
    Mount("proxy", "producers.commands.proxy", "Make, show and destroy proxies."),
    Mount("submit", "producers.commands.submit", "Submit jobs."),
    Mount("job", "producers.commands.job", "See and steer jobs."),
    Mount("queue", "producers.commands.queue", "See what waits for pilots, and why."),
    Mount("watch", "producers.commands.watch", "Watch everything that happens; Ctrl-C ends it."),
    Mount("replica", "producers.commands.replica", "Where files have their copies."),
    Mount("audit", "producers.commands.audit", "See the audit, and verify that nobody changed it."),
    Mount("pilot", "producers.commands.pilot", "Enrol pilots, list and revoke them (operators)."),
    Mount("site", "producers.commands.site", "List sites, ban them and allow them again."),
    Mount("admin", "producers.commands.admin", "See and change who and what is known (operators)."),
    Mount("session", "producers.commands.session", "See who is connected, and cut connections (operators)."),
    Mount("dead", "producers.commands.dead", "See and deal with messages that could not be handled."),
    Mount("repository", "producers.commands.repository", "See the proxy repository, change its master key."),
)

INTERNAL_ERROR = 70
"""As in producers.commands.exit_codes; repeated here so that a broken installation still ends in order."""

READER_LEFT = 141
"""Whoever read our output has left (``| head``): as a shell reports SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; ends the process."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    code = run(words)
    try:
        sys.stdout.flush()
    except OSError as error:  # the disk below it is full, say
        code = code or _report(error)
        _close_output()
    sys.exit(code)


def run(words: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    if words and words[0] == "--version":
        print(f"{PROGRAM} {version()}")
        return 0
    if not _completing() and (not words or words[0] in {"--help", "-h", "help"}):
        print(help_text())
        return 0
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _close_output()
        return READER_LEFT
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        return _report(error)


def _dispatch(words: Sequence[str]) -> int:
    from .group import make_group

    _keep_quiet()
    try:
        make_group(MOUNTS, help_text(), _load_settings)(args=list(words), prog_name=PROGRAM)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # the command line's library has turned it into an end
            raise end.__context__ from None
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _load_settings() -> UserSettings:
    from .settings import load_user_settings

    return load_user_settings()


def _completing() -> bool:
    return f"_{PROGRAM.upper()}_COMPLETE" in os.environ


def available() -> tuple[Mount, ...]:
    """The mounts whose module is installed."""
    from importlib.util import find_spec

    return tuple(mount for mount in MOUNTS if mount.module != _LOCAL or find_spec(mount.module) is not None)


def help_text() -> str:
    """What ``pilotage --help`` prints."""
    mounts = available()
    width = max(len(mount.name) for mount in mounts)
    commands = "\n".join(f"  {mount.name:<{width}}  {mount.summary}" for mount in mounts)
    return f"""\
Usage: {PROGRAM} [OPTIONS] COMMAND [ARGS]...

Run jobs on whatever computers there are: submit, follow, fetch.

Commands:
{commands}

Options:
  --version             Show the version and exit.
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell.
  --help                Show this message and exit; also after a command.

First steps: {PROGRAM} proxy init; {PROGRAM} submit FILE.jdl; {PROGRAM} job list"""


def version() -> str:
    """Version of the installed distribution, or what the source says."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pilotage")
    except PackageNotFoundError:
        return "0 (not installed)"


def _report(error: Exception) -> int:
    """One line for the user, and the code that the error has."""
    if os.environ.get("PILOTAGE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    try:
        from producers.commands.exit_codes import ExitCode, code_of
        from producers.commands.printing import harmless
        from schemas.errors import PilotageError
    except ImportError as broken:
        print(f"error: {PROGRAM} is not installed completely: {broken}", file=sys.stderr)
        return INTERNAL_ERROR
    if isinstance(error, PilotageError):
        lines = str(error).splitlines() or [type(error).__name__]
        print(f"error: {harmless(' '.join(lines))}", file=sys.stderr)
        return int(code_of(error))
    if isinstance(error, OSError) and error.strerror:
        place = f"{harmless(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        return int(ExitCode.NO)
    print(f"error: {PROGRAM} has a bug ({type(error).__name__}); {_save(error)}", file=sys.stderr)
    return INTERNAL_ERROR


def _save(error: Exception) -> str:
    """Write the traceback to a file that only the user reads; says where."""
    import tempfile
    import traceback

    state = os.environ.get("XDG_STATE_HOME", "")
    folder = (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "pilotage"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="error-", suffix=".log", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return "PILOTAGE_DEBUG=1 shows more"
    return f"details are in {name}"


def _open_streams() -> None:
    """Give a process that was started with closed streams (``<&-``) empty ones."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for the process's life


def _keep_quiet() -> None:
    """Commands say what went wrong in their own words; the connection's log lines are for ``PILOTAGE_DEBUG=1``."""
    import logging

    if os.environ.get("PILOTAGE_DEBUG") == "1":
        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
        logging.getLogger("pika").setLevel(logging.WARNING)
    else:
        logging.getLogger("pilotage").addHandler(logging.NullHandler())


def _close_output() -> None:
    """Let the interpreter's last flush go nowhere: the reader of our output has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

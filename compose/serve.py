"""``pilotage-serve NAME…|all``: the composition root of the services.

Each named service gets its own identity, broker connection and thread. ``all`` serves everything in one process, as
the embedded SQLite store demands; with PostgreSQL any number of processes share the work. Stops on SIGTERM or SIGINT:
what is at work is finished and committed, what was not acknowledged comes again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from pilot.kernel import forbid_memory_access
from schemas.errors import ConfigurationError, PilotageError

from .server_settings import DEFAULT_PATH, load


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    # Here: starting with --help or a wrong argument must not load SQLAlchemy and pika.
    from .logging_setup import configure
    from .services import NAMES, ServiceGroup

    names = list(NAMES) if "all" in arguments.names else arguments.names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.stderr.write(f"error: no such service: {', '.join(unknown)}; there are: {', '.join(NAMES)}, all\n")
        return 2
    configure(json=not sys.stderr.isatty())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        keep_to_itself()
        group = ServiceGroup(load(arguments.config), names)
        with group:
            _announce(arguments.ready_file)
            group.wait(stop)
    except PilotageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 1 if group.failed else 0


def keep_to_itself() -> None:
    """Nothing of this process is for others: no file that it writes and, living or crashed, not its memory.

    Another process of the service account (there should be none) reads neither its keys nor its open files; a core
    dump is not made even where the kernel hands dumps to a program, for which the limit alone does not count (core(5)).

    Raises:
        ConfigurationError: the kernel does not keep its memory private.
    """
    os.umask(0o077)
    try:
        forbid_memory_access()
    except OSError as error:
        raise ConfigurationError(f"the memory of this process cannot be kept private: {error.strerror}") from None


def _announce(ready_file: Path | None) -> None:
    if ready_file is not None:
        ready_file.write_text(f"{os.getpid()}\n", encoding="ascii")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pilotage-serve", description="Run services of Pilotage.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="services to run, or all")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help=f"settings (default {DEFAULT_PATH})")
    parser.add_argument("--ready-file", type=Path, help="written once everything serves")
    return parser


if __name__ == "__main__":
    sys.exit(main())

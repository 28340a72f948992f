"""The pilot's command line: ``pilotage-pilot``, ``python -m pilot`` and the entry of ``pilot.pyz``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import PilotageError

from .guard import Guard
from .hardware import VISIBLE, find_gpus
from .kernel import forbid_memory_access, steady_now
from .node import measure

SECRET_VARIABLE = "PILOTAGE_ENROLMENT"  # noqa: S105 - the name of a variable
"""Holds an enrolment secret where a batch system offers nothing better (``enrolment = "env"``). It is taken out at
once, and no process that we start ever has it; but until then whoever runs under the same account may read it."""

SIGNALLED = 128
"""Exit codes above say which signal ended the pilot."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pilot's command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.probe:
        found = measure(options.work_area, now=steady_now(), gpus=find_gpus(given=os.environ.get(VISIBLE)))
        sys.stdout.write(json.dumps(dataclasses.asdict(found), indent=2) + "\n")
        return 0
    if options.config is None:
        parser.error("--config is needed (or --probe)")
    # First of all, and for the keeper, too: whatever else runs under this account must not read what comes now.
    try:
        forbid_memory_access()
    except OSError as error:
        sys.stderr.write(f"error: this node cannot keep a pilot's key private: {error.strerror}\n")
        return 1
    secret = os.environ.pop(SECRET_VARIABLE, "")
    # Here: the keeper forks, so nothing that starts threads may be loaded before.
    from .keeper import keep

    guard = Guard()
    code = keep(lambda: _run(options.config, options.ready_file, guard, secret), guard)
    if code > SIGNALLED:
        _clean_up(options.config)
    return code


def _clean_up(config: Path) -> None:
    """A pilot that died suddenly left its jobs' folders, with their owners' proxies in them."""
    from .settings import load
    from .workdir import sweep

    with contextlib.suppress(PilotageError, OSError):  # then the next pilot of this account does it
        sweep(load(config).work_dir)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pilotage-pilot", description="A pilot: runs jobs in the slot it was given.")
    parser.add_argument("--config", type=Path, help="settings (pilot.toml)")
    parser.add_argument("--probe", action="store_true", help="print what this node offers, as JSON, and end")
    parser.add_argument("--work-area", type=Path, default=Path.cwd(), help="with --probe: where payloads would run")
    parser.add_argument("--ready-file", type=Path, help="written once the pilot has logged in")
    return parser


def _run(config: Path, ready_file: Path | None, guard: Guard, secret: str) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    import structlog

    from .life import live
    from .logs import configure

    configure()
    try:
        name = f"{os.uname().nodename}-{os.getpid()}"
        why = live(config, stop, name=name, ready_file=ready_file, guard=guard, secret=secret)
    except PilotageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    structlog.get_logger(__name__).info("pilot.ended", why=why)
    return 0


if __name__ == "__main__":
    sys.exit(main())

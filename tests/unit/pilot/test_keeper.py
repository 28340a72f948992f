"""If a pilot dies of anything, its payloads die with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.wait import wait_until

PILOT = """
import os, pathlib, signal, sys
from pilot.keeper import keep

def pilot():
    from pilot.payload import PayloadSpec
    from pilot.runner import PayloadRunner
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    with PayloadRunner() as runner:
        script = "(setsid setsid sleep {mark} &); sleep {mark}"
        payload = runner.start(PayloadSpec("1", 1, pathlib.Path(sys.argv[1]), "/bin/sh", ("-c", script)))
        print(os.getpid(), flush=True)
        while not ended:
            signal.pause()
    return 7

sys.exit(keep(pilot))
"""


@pytest.mark.parametrize(
    ("victim", "number", "code"),
    [
        ("pilot", signal.SIGKILL, 137),
        ("keeper", signal.SIGKILL, -9),
        ("keeper", signal.SIGTERM, 7),
        ("pilot", signal.SIGTERM, 7),
    ],
)
def test_payloads_die_with_their_pilot(
    tmp_path: Path, living: Callable[[str], list[int]], victim: str, number: int, code: int
) -> None:
    mark = f"98766{os.getpid()}"
    command = [sys.executable, "-c", PILOT.replace("{mark}", mark), tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        pilot = int(keeper.stdout.readline())
        wait_until(lambda: len(living(f"sleep\0{mark}")) == 2, 5, "the payload and its daemon")
        os.kill(pilot if victim == "pilot" else keeper.pid, number)
        assert keeper.wait(10) == code
    wait_until(lambda: not living(f"sleep\0{mark}"), 5, "the end of all processes")


def test_exit_codes_go_through() -> None:
    for body, code in (
        ("return 5", 5),
        ("raise SystemExit(6)", 6),
        ("raise ValueError", 70),
        ("import os; os.abort()", 134),
    ):
        script = f"import sys\nfrom pilot.keeper import keep\ndef main():\n    {body}\nsys.exit(keep(main))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20)
        assert done.returncode == code
